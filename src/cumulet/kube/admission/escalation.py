"""No user grants rights that they do not have (RBAC, "Privilege escalation prevention and bootstrapping").

A writer of a role must have its rules, or the right to `escalate` it. A writer of a binding must have the rules of
its role, or the right to `bind` it.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Literal

from cumulet.common.kubernetes.objects import Object
from cumulet.kube.access.attributes import Attributes
from cumulet.kube.access.authorization import Authorizer, covers
from cumulet.kube.admission.webhooks import AdmissionRequest
from cumulet.kube.apimachinery.status import forbidden, not_found
from cumulet.kube.schema.validation.field_errors import quoted
from cumulet.kube.store import Store

if TYPE_CHECKING:
    from cumulet.common.kubernetes.objects import PolicyRule

_GROUP = "rbac.authorization.k8s.io"
_ROLES, _CLUSTER_ROLES = f"roles.{_GROUP}", f"clusterroles.{_GROUP}"
_BINDINGS = (f"rolebindings.{_GROUP}", f"clusterrolebindings.{_GROUP}")
KEYS = (_ROLES, _CLUSTER_ROLES, *_BINDINGS)
_EVERYTHING: list[PolicyRule] = [
    {"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]},
    {"nonResourceURLs": ["*"], "verbs": ["*"]},
]
#: Fields that the garbage collector and the server write.
_COLLECTED = frozenset(("finalizers", "ownerReferences", "managedFields", "resourceVersion", "generation"))
_SHOWN: tuple[tuple[Literal["apiGroups", "resources", "nonResourceURLs", "resourceNames", "verbs"], str], ...] = (
    ("apiGroups", "APIGroups"),
    ("resources", "Resources"),
    ("nonResourceURLs", "NonResourceURLs"),
    ("resourceNames", "ResourceNames"),
    ("verbs", "Verbs"),
)


class Escalations:
    """Checks the rights of users that write roles and bindings."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._authorizer = Authorizer(store)

    def check(self, request: AdmissionRequest) -> None:
        """Check a write. Raises `ApiError` 403, and 404 where the bound role does not exist."""
        obj, old = request.obj, request.old
        if obj is None or "system:masters" in request.user.groups:
            return
        if old is not None and _uncollected(obj) == _uncollected(old):
            return
        if request.row.key in _BINDINGS:
            self._confirm(request, self._bound(request, obj["roleRef"]))
            return
        name = obj["metadata"].get("name", "")
        wanted = Attributes("escalate", _GROUP, request.row.plural, "", request.namespace, name)
        if self._authorizer.allows(request.user, wanted):
            return
        if any(item is not None and item.get("aggregationRule") for item in (obj, old)):
            # An aggregated role can gather any rule.
            self._confirm(request, _EVERYTHING, "must have cluster-admin privileges to use an aggregationRule: ")
        self._confirm(request, obj.get("rules") or [])

    def _bound(self, request: AdmissionRequest, reference: Object) -> list[PolicyRule]:
        """Return the rules of a bound role that its writer must have."""
        plural = "roles" if reference["kind"] == "Role" else "clusterroles"
        wanted = Attributes("bind", _GROUP, plural, "", request.namespace, reference["name"])
        if self._authorizer.allows(request.user, wanted):
            return []
        namespace = request.namespace if plural == "roles" else ""
        stored = self._store.get(f"{plural}.{_GROUP}", namespace, reference["name"])
        if stored is None:
            raise not_found(_GROUP, plural, reference["name"])
        return stored.load().get("rules") or []

    def _confirm(self, request: AdmissionRequest, rules: list[PolicyRule], start: str = "") -> None:
        user = request.user
        own = self._authorizer.rules(user, request.namespace)
        missing = [right for right in _single(rules) if not any(covers(rule, right) for rule in own)]
        if missing:
            shown = sorted({_shown(rule) for rule in _compact(missing)})
            groups = " ".join(map(quoted, user.groups))
            why = (
                f"{start}user {quoted(user.name)} (groups=[{groups}]) is attempting to grant RBAC permissions not "
                "currently held:\n" + "\n".join(shown)
            )
            assert request.obj is not None
            raise forbidden(_GROUP, request.row.plural, request.obj["metadata"].get("name", ""), why)


def _uncollected(obj: Object) -> Object:
    metadata = {key: value for key, value in obj["metadata"].items() if key not in _COLLECTED}
    return {**obj, "metadata": metadata}


def _single(rules: Iterable[PolicyRule]) -> Iterator[Attributes]:
    """Yield the single rights of rules."""
    for rule in rules:
        verbs = rule.get("verbs") or ()
        for group, resource, verb, name in itertools.product(
            rule.get("apiGroups") or (), rule.get("resources") or (), verbs, rule.get("resourceNames") or ("",)
        ):
            plural, _, part = resource.partition("/")
            yield Attributes(verb, group, plural, part, name=name)
        for path, verb in itertools.product(rule.get("nonResourceURLs") or (), verbs):
            yield Attributes(verb, path=path)


def _compact(rights: Iterable[Attributes]) -> Iterator[PolicyRule]:
    """Merge rights into rules: one for each resource, but one for each named object."""
    by_resource: dict[tuple[str, str], list[str]] = {}
    for right in rights:
        resource = f"{right.resource}/{right.subresource}" if right.subresource else right.resource
        if right.path:
            yield {"nonResourceURLs": [right.path], "verbs": [right.verb]}
        elif right.name:
            yield {
                "apiGroups": [right.group],
                "resources": [resource],
                "resourceNames": [right.name],
                "verbs": [right.verb],
            }
        else:
            by_resource.setdefault((right.group, resource), []).append(right.verb)
    for (group, resource), verbs in by_resource.items():
        yield {"apiGroups": [group], "resources": [resource], "verbs": list(dict.fromkeys(verbs))}


def _shown(rule: PolicyRule) -> str:
    parts = [f"{name}:[{' '.join(map(quoted, rule[key]))}]" for key, name in _SHOWN if rule.get(key)]
    return f"{{{', '.join(parts)}}}"
