"""The table of resources, one row a kind. It drives routing, discovery and storage."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from cumulet.common.ascii import fold

if TYPE_CHECKING:
    from cumulet.kube.custom.kind import Custom

ALL_VERBS = ("create", "delete", "deletecollection", "get", "list", "patch", "update", "watch")


class Row(NamedTuple):
    """One resource. Each of the `subresources` but `status` has its own handler."""

    group: str
    version: str
    kind: str
    plural: str
    namespaced: bool = True
    short_names: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    subresources: tuple[str, ...] = ()
    verbs: tuple[str, ...] = ALL_VERBS
    #: The schema and the other parts of a custom resource.
    custom: Custom | None = None
    #: The row in whose form objects are stored, if not this one (`builtin_conversion`).
    hub: Row | None = None

    @property
    def api_version(self) -> str:
        """`v1` or `apps/v1`."""
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def is_remote(self) -> bool:
        """Whether an aggregated server serves the resource; only that server knows its kind."""
        return not self.kind

    @property
    def singular(self) -> str:
        """The kind in lower case, as upstream derives it."""
        return fold(self.kind)

    @property
    def key(self) -> str:
        """The name in the store and in rules: `pods` or `deployments.apps`."""
        if self.hub is not None:
            return self.hub.key
        return f"{self.plural}.{self.group}" if self.group else self.plural


_ALL = ("all",)
_STATUS = ("status",)
_SCALED = ("status", "scale")
_API = ("api-extensions",)
_RBAC = "rbac.authorization.k8s.io"
_ADMISSION = "admissionregistration.k8s.io"
_STORAGE = "storage.k8s.io"
_FLOW = "flowcontrol.apiserver.k8s.io"
_RESOURCE = "resource.k8s.io"
_NAMESPACE_VERBS = tuple(verb for verb in ALL_VERBS if verb != "deletecollection")

_EVENT = Row("", "v1", "Event", "events", short_names=("ev",))
_AUTOSCALER = Row(
    "autoscaling",
    "v2",
    "HorizontalPodAutoscaler",
    "horizontalpodautoscalers",
    short_names=("hpa",),
    categories=_ALL,
    subresources=_STATUS,
)

RESOURCES: tuple[Row, ...] = (
    Row("", "v1", "Binding", "bindings", verbs=("create",)),
    Row("", "v1", "ConfigMap", "configmaps", short_names=("cm",)),
    Row("", "v1", "Endpoints", "endpoints", short_names=("ep",)),
    _EVENT,
    Row("", "v1", "LimitRange", "limitranges", short_names=("limits",)),
    Row(
        "",
        "v1",
        "Namespace",
        "namespaces",
        False,
        ("ns",),
        subresources=("status", "finalize"),
        verbs=_NAMESPACE_VERBS,
    ),
    Row("", "v1", "Node", "nodes", False, ("no",), subresources=("status", "proxy")),
    Row("", "v1", "PersistentVolumeClaim", "persistentvolumeclaims", short_names=("pvc",), subresources=_STATUS),
    Row("", "v1", "PersistentVolume", "persistentvolumes", False, ("pv",), subresources=_STATUS),
    Row(
        "",
        "v1",
        "Pod",
        "pods",
        short_names=("po",),
        categories=_ALL,
        subresources=(
            "status",
            "binding",
            "eviction",
            "log",
            "exec",
            "attach",
            "portforward",
            "proxy",
            "ephemeralcontainers",
            "resize",
        ),
    ),
    Row("", "v1", "PodTemplate", "podtemplates"),
    Row(
        "",
        "v1",
        "ReplicationController",
        "replicationcontrollers",
        short_names=("rc",),
        categories=_ALL,
        subresources=_SCALED,
    ),
    Row("", "v1", "ResourceQuota", "resourcequotas", short_names=("quota",), subresources=_STATUS),
    Row("", "v1", "Secret", "secrets"),
    Row("", "v1", "ServiceAccount", "serviceaccounts", short_names=("sa",), subresources=("token",)),
    Row("", "v1", "Service", "services", short_names=("svc",), categories=_ALL, subresources=("status", "proxy")),
    Row("apps", "v1", "ControllerRevision", "controllerrevisions"),
    Row("apps", "v1", "DaemonSet", "daemonsets", short_names=("ds",), categories=_ALL, subresources=_STATUS),
    Row("apps", "v1", "Deployment", "deployments", short_names=("deploy",), categories=_ALL, subresources=_SCALED),
    Row("apps", "v1", "ReplicaSet", "replicasets", short_names=("rs",), categories=_ALL, subresources=_SCALED),
    Row("apps", "v1", "StatefulSet", "statefulsets", short_names=("sts",), categories=_ALL, subresources=_SCALED),
    _AUTOSCALER,
    _AUTOSCALER._replace(version="v1", hub=_AUTOSCALER),
    Row("batch", "v1", "CronJob", "cronjobs", short_names=("cj",), categories=_ALL, subresources=_STATUS),
    Row("batch", "v1", "Job", "jobs", categories=_ALL, subresources=_STATUS),
    Row("coordination.k8s.io", "v1", "Lease", "leases"),
    _EVENT._replace(group="events.k8s.io", hub=_EVENT),
    Row("discovery.k8s.io", "v1", "EndpointSlice", "endpointslices"),
    Row("networking.k8s.io", "v1", "IngressClass", "ingressclasses", False),
    Row("networking.k8s.io", "v1", "Ingress", "ingresses", short_names=("ing",), subresources=_STATUS),
    Row("networking.k8s.io", "v1", "NetworkPolicy", "networkpolicies", short_names=("netpol",)),
    Row("policy", "v1", "PodDisruptionBudget", "poddisruptionbudgets", short_names=("pdb",), subresources=_STATUS),
    Row(_RBAC, "v1", "ClusterRoleBinding", "clusterrolebindings", False),
    Row(_RBAC, "v1", "ClusterRole", "clusterroles", False),
    Row(_RBAC, "v1", "RoleBinding", "rolebindings"),
    Row(_RBAC, "v1", "Role", "roles"),
    Row("scheduling.k8s.io", "v1", "PriorityClass", "priorityclasses", False, ("pc",)),
    Row("storage.k8s.io", "v1", "StorageClass", "storageclasses", False, ("sc",)),
    Row(_STORAGE, "v1", "CSIDriver", "csidrivers", False),
    Row(_STORAGE, "v1", "CSINode", "csinodes", False),
    Row(_STORAGE, "v1", "CSIStorageCapacity", "csistoragecapacities"),
    Row(_STORAGE, "v1", "VolumeAttachment", "volumeattachments", False, subresources=_STATUS),
    Row(_STORAGE, "v1", "VolumeAttributesClass", "volumeattributesclasses", False, ("vac",)),
    Row(
        "certificates.k8s.io",
        "v1",
        "CertificateSigningRequest",
        "certificatesigningrequests",
        False,
        ("csr",),
        subresources=("status", "approval"),
    ),
    Row("networking.k8s.io", "v1", "IPAddress", "ipaddresses", False, ("ip",)),
    Row("networking.k8s.io", "v1", "ServiceCIDR", "servicecidrs", False, subresources=_STATUS),
    Row("node.k8s.io", "v1", "RuntimeClass", "runtimeclasses", False),
    Row(_ADMISSION, "v1", "MutatingWebhookConfiguration", "mutatingwebhookconfigurations", False, (), _API),
    Row(_ADMISSION, "v1", "ValidatingWebhookConfiguration", "validatingwebhookconfigurations", False, (), _API),
    Row(_ADMISSION, "v1", "MutatingAdmissionPolicy", "mutatingadmissionpolicies", False, (), _API),
    Row(_ADMISSION, "v1", "MutatingAdmissionPolicyBinding", "mutatingadmissionpolicybindings", False, (), _API),
    Row(_ADMISSION, "v1", "ValidatingAdmissionPolicy", "validatingadmissionpolicies", False)._replace(
        categories=_API, subresources=_STATUS
    ),
    Row(_ADMISSION, "v1", "ValidatingAdmissionPolicyBinding", "validatingadmissionpolicybindings", False, (), _API),
    Row("apiextensions.k8s.io", "v1", "CustomResourceDefinition", "customresourcedefinitions", False)._replace(
        short_names=("crd", "crds"), categories=_API, subresources=_STATUS
    ),
    Row("apiregistration.k8s.io", "v1", "APIService", "apiservices", False, (), _API, _STATUS),
    Row(_FLOW, "v1", "FlowSchema", "flowschemas", False, subresources=_STATUS),
    Row(_FLOW, "v1", "PriorityLevelConfiguration", "prioritylevelconfigurations", False, subresources=_STATUS),
    Row(_RESOURCE, "v1", "DeviceClass", "deviceclasses", False),
    Row(_RESOURCE, "v1", "ResourceClaim", "resourceclaims", subresources=_STATUS),
    Row(_RESOURCE, "v1", "ResourceClaimTemplate", "resourceclaimtemplates"),
    Row(_RESOURCE, "v1", "ResourceSlice", "resourceslices", False),
    # Current usage: read from the nodes, not stored.
    Row("metrics.k8s.io", "v1beta1", "NodeMetrics", "nodes", False, verbs=("get", "list")),
    Row("metrics.k8s.io", "v1beta1", "PodMetrics", "pods", verbs=("get", "list")),
    # Reviews: answered, not stored.
    Row("authentication.k8s.io", "v1", "SelfSubjectReview", "selfsubjectreviews", False, verbs=("create",)),
    Row("authentication.k8s.io", "v1", "TokenReview", "tokenreviews", False, verbs=("create",)),
    Row("authorization.k8s.io", "v1", "LocalSubjectAccessReview", "localsubjectaccessreviews", verbs=("create",)),
    Row(
        "authorization.k8s.io", "v1", "SelfSubjectAccessReview", "selfsubjectaccessreviews", False, verbs=("create",)
    ),
    Row("authorization.k8s.io", "v1", "SelfSubjectRulesReview", "selfsubjectrulesreviews", False, verbs=("create",)),
    Row("authorization.k8s.io", "v1", "SubjectAccessReview", "subjectaccessreviews", False, verbs=("create",)),
)

BY_KEY: dict[str, Row] = {row.key: row for row in RESOURCES if row.hub is None}
