"""The validation of the built-in kinds, field by field, in upstream's words (`pkg/apis/*/validation`).

The input is an object and, on update, the previous one. The output is the causes of a 422.
"""

from __future__ import annotations

from collections.abc import Callable

from cumulet.common.kubernetes.objects import Object
from cumulet.kube.apimachinery import name_formats
from cumulet.kube.apimachinery.status import Cause
from cumulet.kube.schema.validation import other_kinds, statuses
from cumulet.kube.schema.validation.bounds import limit_range, resource_quota
from cumulet.kube.schema.validation.certificates import certificate_request, decision
from cumulet.kube.schema.validation.claims import claim
from cumulet.kube.schema.validation.contents import config_map, secret
from cumulet.kube.schema.validation.jobs import cron_job, job
from cumulet.kube.schema.validation.metadata import Form, metadata, metadata_update
from cumulet.kube.schema.validation.pod_updates import ephemeral_containers, pod_status, pod_update, resize
from cumulet.kube.schema.validation.pods import pod
from cumulet.kube.schema.validation.published import published
from cumulet.kube.schema.validation.services import service
from cumulet.kube.schema.validation.traffic import network_policy
from cumulet.kube.schema.validation.webhooks import (
    admission_policy,
    mutating_binding,
    mutating_policy,
    policy_binding,
    webhook_configuration,
)
from cumulet.kube.schema.validation.workloads import (
    controller_revision,
    daemon_set,
    deployment,
    pod_template,
    replica_set,
    replication_controller,
    stateful_set,
)

Rule = Callable[[Object, Object | None], list[Cause]]
PartRule = Callable[[Object, Object], list[Cause]]

_ADMISSION = "admissionregistration.k8s.io"
_CERTIFICATES = "certificates.k8s.io"
_RBAC = "rbac.authorization.k8s.io"


def validate(
    obj: Object, old: Object | None, group: str, kind: str, subresource: str = "", *, has_domains: bool
) -> list[Cause]:
    """Return all causes against an object, or an update of `old`, through a sub-resource if one is named.

    `has_domains` states whether a finalizer of this kind must have a domain.
    """
    if old is None:
        causes = list(metadata(obj["metadata"], _form(group, kind), has_domains=has_domains))
    else:
        causes = list(metadata_update(obj["metadata"], old["metadata"], has_domains=has_domains))
    if subresource:
        part = _PARTS.get((group, kind, subresource))
        return causes + part(obj, old or {}) if part is not None else causes
    rule = _RULES.get((group, kind))
    if rule is not None:
        causes += rule(obj, old)
    if (group, kind) not in _OF_THE_PATH and old is None:
        reported = {cause.field for cause in causes}
        causes += [cause for cause in published(obj, group, kind) if cause.field not in reported]
    return causes


def _form(group: str, kind: str) -> Form:
    """Return the rule for the names of a kind's objects."""
    if group == _RBAC:
        return name_formats.path_segment
    return _FORMS.get((group, kind), name_formats.dns_subdomain)


_FORMS: dict[tuple[str, str], Form] = {
    ("", "Namespace"): name_formats.dns_label,
    ("", "Service"): name_formats.dns_label,
    ("apps", "StatefulSet"): name_formats.dns_label,
    ("policy", "PodDisruptionBudget"): name_formats.path_segment,
    ("", "Event"): name_formats.path_segment,
}
#: Kinds whose own rules are complete.
_OF_THE_PATH = frozenset(
    [
        *(
            ("", kind)
            for kind in (
                *("Pod", "Service", "Secret", "ConfigMap", "Namespace", "Node"),
                *("PersistentVolumeClaim", "PodTemplate", "ReplicationController"),
            )
        ),
        *(("apps", kind) for kind in ("Deployment", "ReplicaSet", "StatefulSet", "DaemonSet", "ControllerRevision")),
        *(("batch", kind) for kind in ("Job", "CronJob")),
        *((_ADMISSION, f"{kind}WebhookConfiguration") for kind in ("Mutating", "Validating")),
        ("apiextensions.k8s.io", "CustomResourceDefinition"),
    ]
)
_PARTS: dict[tuple[str, str, str], PartRule] = {
    (_CERTIFICATES, "CertificateSigningRequest", "approval"): decision,
    (_CERTIFICATES, "CertificateSigningRequest", "status"): decision,
    ("", "Pod", "ephemeralcontainers"): ephemeral_containers,
    ("", "Pod", "resize"): resize,
    ("", "Pod", "status"): pod_status,
    ("", "Namespace", "status"): statuses.namespace_status,
    ("", "Service", "status"): statuses.service_status,
    ("", "PersistentVolumeClaim", "status"): statuses.claim_status,
    ("", "ReplicationController", "status"): statuses.replication_controller_status,
    ("apps", "Deployment", "status"): statuses.deployment_status,
    ("apps", "ReplicaSet", "status"): statuses.replica_set_status,
    ("apps", "StatefulSet", "status"): statuses.stateful_set_status,
    ("apps", "DaemonSet", "status"): statuses.daemon_set_status,
}
_RULES: dict[tuple[str, str], Rule] = {
    ("", "Pod"): lambda obj, old: pod(obj, old) if old is None else pod_update(obj, old),
    ("", "PodTemplate"): pod_template,
    ("", "ReplicationController"): replication_controller,
    ("", "Service"): service,
    ("", "Secret"): secret,
    ("", "ConfigMap"): config_map,
    ("", "PersistentVolumeClaim"): claim,
    ("apps", "Deployment"): deployment,
    ("apps", "ReplicaSet"): replica_set,
    ("apps", "StatefulSet"): stateful_set,
    ("apps", "DaemonSet"): daemon_set,
    ("apps", "ControllerRevision"): controller_revision,
    ("batch", "Job"): job,
    ("batch", "CronJob"): cron_job,
    ("", "Namespace"): other_kinds.namespace,
    ("", "Node"): other_kinds.node,
    ("autoscaling", "HorizontalPodAutoscaler"): other_kinds.autoscaler,
    ("networking.k8s.io", "Ingress"): other_kinds.ingress,
    ("networking.k8s.io", "NetworkPolicy"): network_policy,
    ("", "ResourceQuota"): resource_quota,
    ("", "LimitRange"): limit_range,
    ("policy", "PodDisruptionBudget"): other_kinds.disruption_budget,
    ("scheduling.k8s.io", "PriorityClass"): other_kinds.priority_class,
    (_RBAC, "Role"): other_kinds.role,
    (_RBAC, "ClusterRole"): other_kinds.role,
    (_RBAC, "RoleBinding"): other_kinds.role_binding,
    (_RBAC, "ClusterRoleBinding"): other_kinds.role_binding,
    (_CERTIFICATES, "CertificateSigningRequest"): certificate_request,
    (_ADMISSION, "MutatingWebhookConfiguration"): webhook_configuration,
    (_ADMISSION, "ValidatingWebhookConfiguration"): webhook_configuration,
    (_ADMISSION, "MutatingAdmissionPolicy"): mutating_policy,
    (_ADMISSION, "MutatingAdmissionPolicyBinding"): mutating_binding,
    (_ADMISSION, "ValidatingAdmissionPolicy"): admission_policy,
    (_ADMISSION, "ValidatingAdmissionPolicyBinding"): policy_binding,
}
