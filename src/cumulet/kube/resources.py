"""The table of resources: everything that is served, a row a kind. Routing, discovery and storage are driven by it."""

from __future__ import annotations

from typing import NamedTuple

ALL_VERBS = ("create", "delete", "deletecollection", "get", "list", "patch", "update", "watch")


class Row(NamedTuple):
    """One resource; `subresources` beside `status` are served by code of their own."""

    group: str
    version: str
    kind: str
    plural: str
    namespaced: bool = True
    short_names: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    subresources: tuple[str, ...] = ()
    verbs: tuple[str, ...] = ALL_VERBS

    @property
    def api_version(self) -> str:
        """`v1` or `apps/v1`."""
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def singular(self) -> str:
        """The kind in lower case, as upstream derives it."""
        return self.kind.lower()

    @property
    def key(self) -> str:
        """`pods` or `deployments.apps`: what storage and rules call it."""
        return f"{self.plural}.{self.group}" if self.group else self.plural


_ALL = ("all",)
_STATUS = ("status",)
_SCALED = ("status", "scale")
_RBAC = "rbac.authorization.k8s.io"

RESOURCES: tuple[Row, ...] = (
    Row("", "v1", "ConfigMap", "configmaps", short_names=("cm",)),
    Row("", "v1", "Endpoints", "endpoints", short_names=("ep",)),
    Row("", "v1", "Event", "events", short_names=("ev",)),
    Row("", "v1", "LimitRange", "limitranges", short_names=("limits",)),
    Row("", "v1", "Namespace", "namespaces", False, ("ns",), subresources=("status", "finalize")),
    Row("", "v1", "Node", "nodes", False, ("no",), subresources=_STATUS),
    Row("", "v1", "PersistentVolumeClaim", "persistentvolumeclaims", short_names=("pvc",), subresources=_STATUS),
    Row("", "v1", "PersistentVolume", "persistentvolumes", False, ("pv",), subresources=_STATUS),
    Row(
        "",
        "v1",
        "Pod",
        "pods",
        short_names=("po",),
        categories=_ALL,
        subresources=("status", "binding", "eviction", "log", "exec", "attach", "portforward", "ephemeralcontainers"),
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
    Row("", "v1", "Service", "services", short_names=("svc",), categories=_ALL, subresources=_STATUS),
    Row("apps", "v1", "ControllerRevision", "controllerrevisions"),
    Row("apps", "v1", "DaemonSet", "daemonsets", short_names=("ds",), categories=_ALL, subresources=_STATUS),
    Row("apps", "v1", "Deployment", "deployments", short_names=("deploy",), categories=_ALL, subresources=_SCALED),
    Row("apps", "v1", "ReplicaSet", "replicasets", short_names=("rs",), categories=_ALL, subresources=_SCALED),
    Row("apps", "v1", "StatefulSet", "statefulsets", short_names=("sts",), categories=_ALL, subresources=_SCALED),
    Row(
        "autoscaling",
        "v2",
        "HorizontalPodAutoscaler",
        "horizontalpodautoscalers",
        short_names=("hpa",),
        categories=_ALL,
        subresources=_STATUS,
    ),
    Row("batch", "v1", "CronJob", "cronjobs", short_names=("cj",), categories=_ALL, subresources=_STATUS),
    Row("batch", "v1", "Job", "jobs", categories=_ALL, subresources=_STATUS),
    Row("coordination.k8s.io", "v1", "Lease", "leases"),
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
    # Questions: they are answered and not kept.
    Row("authentication.k8s.io", "v1", "SelfSubjectReview", "selfsubjectreviews", False, verbs=("create",)),
    Row("authentication.k8s.io", "v1", "TokenReview", "tokenreviews", False, verbs=("create",)),
    Row("authorization.k8s.io", "v1", "LocalSubjectAccessReview", "localsubjectaccessreviews", verbs=("create",)),
    Row(
        "authorization.k8s.io", "v1", "SelfSubjectAccessReview", "selfsubjectaccessreviews", False, verbs=("create",)
    ),
    Row("authorization.k8s.io", "v1", "SelfSubjectRulesReview", "selfsubjectrulesreviews", False, verbs=("create",)),
    Row("authorization.k8s.io", "v1", "SubjectAccessReview", "subjectaccessreviews", False, verbs=("create",)),
)

BY_PATH: dict[tuple[str, str, str], Row] = {(row.group, row.version, row.plural): row for row in RESOURCES}
BY_KEY: dict[str, Row] = {row.key: row for row in RESOURCES}
