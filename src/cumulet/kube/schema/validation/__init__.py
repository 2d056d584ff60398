"""Validation of the kinds of the path, field by field, in upstream's words (`pkg/apis/*/validation`)."""

from __future__ import annotations

import re
from collections.abc import Callable

from cumulet.kube.resources import RESOURCES
from cumulet.kube.schema.validation import others
from cumulet.kube.schema.validation.causes import (
    LABEL,
    LABEL_MESSAGE,
    PATH_SEGMENT,
    SERVICE_MESSAGE,
    SERVICE_NAME,
    SUBDOMAIN,
    SUBDOMAIN_MESSAGE,
    Causes,
    Object,
    as_json,
    forbidden,
    invalid,
    labels,
    qualified,
    required,
)
from cumulet.kube.schema.validation.certificates import certificate_request, decision
from cumulet.kube.schema.validation.contents import config_map, secret
from cumulet.kube.schema.validation.pods import ephemeral_containers, pod, pod_spec
from cumulet.kube.schema.validation.published import published
from cumulet.kube.schema.validation.services import service
from cumulet.kube.schema.validation.webhooks import (
    admission_policy,
    mutating_binding,
    mutating_policy,
    policy_binding,
    webhook_configuration,
)
from cumulet.kube.schema.validation.workloads import cron_job, daemon_set, deployment, job, stateful_set, workload
from cumulet.kube.status import Cause

_FINALIZERS = ("foregroundDeletion", "kubernetes", "orphan")
_ADMISSION = "admissionregistration.k8s.io"
_CERTIFICATES = "certificates.k8s.io"
_RBAC = "rbac.authorization.k8s.io"


#: Those whose finalizers have a domain; custom resources and their definitions need none.
_GROUPS = frozenset(row.group for row in RESOURCES) - {"apiextensions.k8s.io"}


def validate(obj: Object, old: Object | None, group: str, kind: str, subresource: str = "") -> list[Cause]:
    """Everything that is wrong with an object, or with its change from `old`, through a sub-resource where one is named."""
    if subresource:
        part = _PARTS.get((group, kind, subresource))
        return part(obj, old or {}) if part is not None else []
    causes = [*_metadata(obj, group, kind), *_references(obj, old, group)]
    validator = _VALIDATORS.get((group, kind))
    if validator is not None:
        causes += validator(obj, old)
    if (group, kind) not in _OF_THE_PATH and old is None:
        said = {cause.field for cause in causes}
        causes += [cause for cause in published(obj, group, kind) if cause.field not in said]
    return causes


def _metadata(obj: Object, group: str, kind: str) -> Causes:
    metadata = obj["metadata"]
    name = metadata.get("name", "")
    if not name:
        yield required("metadata.name", "name or generateName is required")
    elif (group, kind) in (("", "Namespace"),):
        if len(name) > 63 or not re.fullmatch(LABEL, name):
            yield invalid(
                "metadata.name", name, LABEL_MESSAGE if len(name) <= 63 else "must be no more than 63 bytes"
            )
    elif (group, kind) == ("", "Service"):
        if len(name) > 63 or not re.fullmatch(SERVICE_NAME, name):
            yield invalid(
                "metadata.name", name, SERVICE_MESSAGE if len(name) <= 63 else "must be no more than 63 bytes"
            )
    elif group == _RBAC:
        if not PATH_SEGMENT.fullmatch(name):
            yield invalid("metadata.name", name, "may not contain '/' or '%', and may not be '.' or '..'")
    elif len(name) > 253 or not re.fullmatch(SUBDOMAIN, name):
        yield invalid(
            "metadata.name", name, SUBDOMAIN_MESSAGE if len(name) <= 253 else "must be no more than 253 bytes"
        )
    yield from labels(metadata.get("labels"), "metadata.labels")
    for key in metadata.get("annotations") or ():
        yield from qualified(key.lower(), "metadata.annotations")
    size = sum(len(key) + len(value) for key, value in (metadata.get("annotations") or {}).items())
    if size > 256 * 1024:
        yield Cause("metadata.annotations", "FieldValueTooLong", "Too long: may not be more than 262144 bytes")


def _references(obj: Object, old: Object | None, group: str) -> Causes:
    """Owners and finalizers."""
    metadata = obj["metadata"]
    finalizers = metadata.get("finalizers") or []
    for index, name in enumerate(finalizers):
        if group in _GROUPS and "/" not in name and name not in _FINALIZERS:
            why = "name is neither a standard finalizer name nor is it fully qualified"
            yield invalid(f"metadata.finalizers[{index}]", name, why)
    if old is not None and old["metadata"].get("deletionTimestamp"):
        added = sorted(set(finalizers) - set(old["metadata"].get("finalizers") or ()))
        if added:
            shown = ", ".join(as_json(name) for name in added)
            why = f"no new finalizers can be added if the object is being deleted, found new finalizers []string{{{shown}}}"
            yield forbidden("metadata.finalizers", why)
    controllers = 0
    for index, owner in enumerate(metadata.get("ownerReferences") or ()):
        where = f"metadata.ownerReferences[{index}]"
        for key, words in (("apiVersion", "version must not be empty"), ("kind", "must not be empty")):
            if not owner.get(key):
                yield invalid(f"{where}.{key}", "", words)
        for key in ("name", "uid"):
            if not owner.get(key):
                yield invalid(f"{where}.{key}", "", "must not be empty")
        controllers += owner.get("controller") is True
    if controllers > 1:
        why = "Only one reference can have Controller set to true"
        yield invalid("metadata.ownerReferences", metadata["ownerReferences"], why)


#: Whose own rules say everything.
_OF_THE_PATH = frozenset(
    [
        *(("", kind) for kind in ("Pod", "Service", "Secret", "ConfigMap", "Namespace")),
        *(("apps", kind) for kind in ("Deployment", "ReplicaSet", "StatefulSet", "DaemonSet")),
        *(("batch", kind) for kind in ("Job", "CronJob")),
        *((_ADMISSION, f"{kind}WebhookConfiguration") for kind in ("Mutating", "Validating")),
        ("apiextensions.k8s.io", "CustomResourceDefinition"),
    ]
)
_PARTS: dict[tuple[str, str, str], Callable[[Object, Object], list[Cause]]] = {
    (_CERTIFICATES, "CertificateSigningRequest", "approval"): decision,
    (_CERTIFICATES, "CertificateSigningRequest", "status"): decision,
    ("", "Pod", "ephemeralcontainers"): ephemeral_containers,
    ("", "Pod", "resize"): lambda obj, old: list(pod_spec(obj["spec"], "spec")),
}
_VALIDATORS: dict[tuple[str, str], Callable[[Object, Object | None], list[Cause]]] = {
    ("", "Pod"): pod,
    ("", "Service"): service,
    ("", "Secret"): secret,
    ("", "ConfigMap"): config_map,
    ("apps", "Deployment"): deployment,
    ("apps", "ReplicaSet"): workload,
    ("apps", "StatefulSet"): stateful_set,
    ("apps", "DaemonSet"): daemon_set,
    ("batch", "Job"): job,
    ("batch", "CronJob"): cron_job,
    ("", "Namespace"): others.namespace,
    ("", "Node"): others.node,
    ("", "PersistentVolumeClaim"): others.claim,
    ("autoscaling", "HorizontalPodAutoscaler"): others.autoscaler,
    ("networking.k8s.io", "Ingress"): others.ingress,
    ("policy", "PodDisruptionBudget"): others.disruption_budget,
    ("scheduling.k8s.io", "PriorityClass"): others.priority_class,
    (_RBAC, "Role"): others.role,
    (_RBAC, "ClusterRole"): others.role,
    (_RBAC, "RoleBinding"): others.role_binding,
    (_RBAC, "ClusterRoleBinding"): others.role_binding,
    (_CERTIFICATES, "CertificateSigningRequest"): certificate_request,
    (_ADMISSION, "MutatingWebhookConfiguration"): webhook_configuration,
    (_ADMISSION, "ValidatingWebhookConfiguration"): webhook_configuration,
    (_ADMISSION, "MutatingAdmissionPolicy"): mutating_policy,
    (_ADMISSION, "MutatingAdmissionPolicyBinding"): mutating_binding,
    (_ADMISSION, "ValidatingAdmissionPolicy"): admission_policy,
    (_ADMISSION, "ValidatingAdmissionPolicyBinding"): policy_binding,
}
