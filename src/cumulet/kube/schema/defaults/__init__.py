"""The defaults of the built-in kinds (upstream's `defaults.go` of each API group).

The input is an object, which is completed in place.
"""

from __future__ import annotations

from collections.abc import Callable

from cumulet.common.kubernetes.objects import Object
from cumulet.kube.schema.defaults import access, autoscaling, core, pods, registration, storage, workloads

_RBAC = "rbac.authorization.k8s.io"
_ADMISSION = "admissionregistration.k8s.io"
_FLOW = "flowcontrol.apiserver.k8s.io"
_DEFAULTS: dict[tuple[str, str], Callable[[Object], None]] = {
    ("", "Pod"): pods.pod,
    ("", "PodTemplate"): pods.pod_template_object,
    ("", "Service"): core.service,
    ("", "Secret"): core.secret,
    ("", "Namespace"): core.namespace,
    ("", "Node"): core.node,
    ("", "Endpoints"): core.endpoints,
    ("", "LimitRange"): core.limit_range,
    ("", "PersistentVolumeClaim"): storage.claim,
    ("", "PersistentVolume"): storage.volume,
    ("", "ReplicationController"): workloads.replication_controller,
    ("apps", "Deployment"): workloads.deployment,
    ("apps", "ReplicaSet"): workloads.replica_set,
    ("apps", "StatefulSet"): workloads.stateful_set,
    ("apps", "DaemonSet"): workloads.daemon_set,
    ("batch", "Job"): workloads.job,
    ("batch", "CronJob"): workloads.cron_job,
    ("autoscaling", "HorizontalPodAutoscaler"): autoscaling.autoscaler,
    ("discovery.k8s.io", "EndpointSlice"): core.endpoint_slice,
    ("storage.k8s.io", "StorageClass"): storage.storage_class,
    ("storage.k8s.io", "CSIDriver"): storage.driver,
    ("networking.k8s.io", "NetworkPolicy"): core.network_policy,
    ("networking.k8s.io", "IngressClass"): core.ingress_class,
    ("scheduling.k8s.io", "PriorityClass"): core.priority_class,
    (_RBAC, "RoleBinding"): access.role_binding,
    (_RBAC, "ClusterRoleBinding"): access.role_binding,
    ("apiextensions.k8s.io", "CustomResourceDefinition"): registration.definition,
    (_FLOW, "FlowSchema"): registration.flow_schema,
    (_FLOW, "PriorityLevelConfiguration"): registration.priority_level,
    (_ADMISSION, "ValidatingWebhookConfiguration"): registration.webhooks,
    (_ADMISSION, "MutatingWebhookConfiguration"): registration.mutating_webhooks,
    (_ADMISSION, "MutatingAdmissionPolicy"): registration.policy,
    (_ADMISSION, "MutatingAdmissionPolicyBinding"): registration.policy_binding,
    (_ADMISSION, "ValidatingAdmissionPolicy"): registration.policy,
    (_ADMISSION, "ValidatingAdmissionPolicyBinding"): registration.policy_binding,
}


def set_defaults(obj: Object, group: str, version: str, kind: str) -> None:
    """Set the defaults of a kind, in place."""
    defaulter = _DEFAULTS.get((group, kind))
    if defaulter is not None:
        defaulter(obj)
