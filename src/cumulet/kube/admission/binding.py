"""Policies and their bindings: which of them match a write, with which parameters and variables."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from cumulet.common.kubernetes.objects import Object
from cumulet.kube.access.authorization import Authorizer
from cumulet.kube.admission.cel_authorizer import checking
from cumulet.kube.admission.programs import PolicyPrograms, holds
from cumulet.kube.admission.webhooks import AdmissionRequest
from cumulet.kube.admission.webhooks.review import in_version, is_selected, matching_row, review
from cumulet.kube.apimachinery.status import ApiError, forbidden
from cumulet.kube.catalog.custom_conversion import Conversions
from cumulet.kube.catalog.resources import Row
from cumulet.kube.cel import PER_CONDITIONS, Budget, admission_variables
from cumulet.kube.schema.label_selectors import selects
from cumulet.kube.store import Store

GROUP = "admissionregistration.k8s.io"
_CODES = {"Unauthorized": 401, "Forbidden": 403, "Invalid": 422, "RequestEntityTooLarge": 413}
_EVERYTHING = [
    {"operations": ["*"], "apiGroups": ["*"], "apiVersions": ["*"], "resources": ["*/*"], "scope": "*"},
    {"operations": ["*"], "apiGroups": ["*"], "apiVersions": ["*"], "resources": ["*"], "scope": "*"},
]


class Bound(NamedTuple):
    """A policy with one of its bindings."""

    policy: Object
    binding: Object

    @property
    def names(self) -> str:
        """Both names, as in messages."""
        return f"'{self.policy['metadata']['name']}' with binding '{self.binding['metadata']['name']}'"

    @property
    def fails(self) -> bool:
        """Return whether an evaluation error refuses the write."""
        return bool(self.policy["spec"].get("failurePolicy", "Fail") == "Fail")


class Matched(NamedTuple):
    """A policy that matches a write, and the write in the matching form."""

    bound: Bound
    row: Row
    request: AdmissionRequest


class BoundPolicies:
    """The policies of one kind with their bindings, kept up to date with the store."""

    def __init__(self, store: Store, conversions: Conversions, policies: str, bindings: str, *, title: str) -> None:
        self._store = store
        self._conversions = conversions
        self._authorizer = Authorizer(store)
        self._keys = f"{policies}.{GROUP}", f"{bindings}.{GROUP}"
        self._title = title
        self.bound: list[Bound] = []
        #: The served resources, to match other versions and to find parameters.
        self.rows: Callable[[], Iterable[Row]] = tuple
        for key in self._keys:
            store.on_change(key, self._refresh)
        self._refresh()

    def _refresh(self) -> None:
        policies, bindings = ([stored.load() for stored in self._store.list(key)] for key in self._keys)
        by_name = {policy["metadata"]["name"]: policy for policy in policies}
        bound = [
            Bound(by_name[name], binding)
            for binding in bindings
            if (name := (binding.get("spec") or {}).get("policyName")) in by_name
        ]
        self.bound = sorted(bound, key=lambda item: item.policy["metadata"]["name"])

    async def match(self, bound: Bound, request: AdmissionRequest) -> Matched | None:
        """Return the write in the form that a policy matches, or `None`."""
        if request.row.group == GROUP:
            return None
        row = self._row(bound.policy["spec"].get("matchConstraints") or {}, request)
        extra = bound.binding["spec"].get("matchResources")
        if row is None or (extra and self._row(extra, request) is None):
            return None
        return Matched(bound, row, await in_version(self._conversions, request, row))

    def _row(self, match: Object, request: AdmissionRequest) -> Row | None:
        """Return the resource in whose form the constraints match a write, or `None`."""
        rules = [
            rule
            for rule in match.get("resourceRules") or ()
            if not rule.get("resourceNames") or request.name in rule["resourceNames"]
        ]
        policy = match.get("matchPolicy", "Equivalent")
        as_webhook = {"rules": rules or _EVERYTHING, "matchPolicy": policy}
        excluded = {"rules": match.get("excludeResourceRules") or [], "matchPolicy": policy}
        rows = self.rows()
        row = matching_row(as_webhook, request, rows)
        if row is None or matching_row(excluded, request, rows) or not is_selected(match, request, self._store):
            return None
        return row

    def variables(self, matched: Matched) -> Iterator[Object]:
        """Yield the variables of a policy's expressions, once for each parameter. Raises `ApiError` 403."""
        request = matched.request
        document = review(request, matched.row)["request"]
        namespace = self._store.get("namespaces", "", request.namespace) if request.namespace else None
        loaded = namespace.load() if namespace is not None else None
        common = admission_variables.variables(document, loaded, checking(self._authorizer, request.user))
        for params in self._params(matched.bound, request):
            yield {**common, "params": params}

    def _params(self, bound: Bound, request: AdmissionRequest) -> Iterator[Object | None]:
        """Yield the parameters of a binding. Raises `ApiError` where it requires one and there is none."""
        kind, reference = bound.policy["spec"].get("paramKind"), bound.binding["spec"].get("paramRef")
        if not kind or not reference:
            yield None
            return
        row = next(
            (row for row in self.rows() if (row.api_version, row.kind) == (kind["apiVersion"], kind["kind"])), None
        )
        params: list[Object] = []
        if row is not None:
            namespace = (reference.get("namespace") or request.namespace) if row.namespaced else ""
            for stored in self._store.list(row.key, namespace):
                by_name = reference.get("name") == stored.name
                selector = reference.get("selector")
                if by_name or (selector is not None and selects(selector, stored.labels)):
                    params.append({**stored.load(), "kind": row.kind, "apiVersion": row.api_version})
        if not params and reference.get("parameterNotFoundAction", "Deny") == "Deny":
            why = "no params found for policy binding with `Deny` parameterNotFoundAction"
            raise self.refusal(bound, request, why, "Invalid")
        yield from params

    def refusal(self, bound: Bound, request: AdmissionRequest, message: str, reason: str) -> ApiError:
        """Return the error for a write that a policy refuses."""
        text = f"{self._title} {bound.names} denied request: {message}"
        error = forbidden(request.row.group, request.row.plural, request.name, text)
        error.reason, error.code = reason, _CODES.get(reason, 422)
        error.details = {**(error.details or {}), "causes": [{"message": text}]}
        return error


def applies(programs: PolicyPrograms, variables: Object, budget: Budget) -> bool:
    """Return whether all conditions of a policy hold; they have a budget of their own. Raises `CelError`."""
    if not programs.conditions:
        return True
    own = Budget(PER_CONDITIONS, budget.quick)
    try:
        return holds(programs.conditions, variables, own)
    finally:
        budget.quick = own.quick
