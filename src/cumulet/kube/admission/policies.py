"""Plug-in ValidatingAdmissionPolicy: rules in CEL, bound to what they are asked about (admissionregistration.k8s.io/v1).

Audit annotations are not kept.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from cumulet.kube.admission.webhooks import Question
from cumulet.kube.admission.webhooks.asking import authority, in_version, is_selected, review, wanted_as
from cumulet.kube.authorize import Authorizer
from cumulet.kube.cel import CelError, evaluate, message
from cumulet.kube.cel.authorizing import checking
from cumulet.kube.custom.conversion import Conversions
from cumulet.kube.resources import Row
from cumulet.kube.schema.selecting import selects
from cumulet.kube.status import ApiError, forbidden
from cumulet.kube.store import Store

Object = dict[str, Any]
Functions = dict[str, Callable[..., Any]]

_GROUP = "admissionregistration.k8s.io"
_POLICIES = f"validatingadmissionpolicies.{_GROUP}"
_BINDINGS = f"validatingadmissionpolicybindings.{_GROUP}"
_CODES = {"Unauthorized": 401, "Forbidden": 403, "Invalid": 422, "RequestEntityTooLarge": 413}


class Policies:
    """Every policy with its bindings, as the store has them."""

    def __init__(self, store: Store, conversions: Conversions) -> None:
        self._store = store
        self._conversions = conversions
        self._authorizer = Authorizer(store)
        self._bound: list[tuple[Object, Object]] = []
        #: What is served, for kinds that have several versions and for parameters.
        self.rows: Callable[[], Iterable[Row]] = tuple
        for key in (_POLICIES, _BINDINGS):
            store.on_change(key, self._refresh)
        self._refresh()

    def _refresh(self) -> None:
        policies = {stored.name: stored.load() for stored in self._store.list(_POLICIES)}
        bindings = [stored.load() for stored in self._store.list(_BINDINGS)]
        self._bound = [
            (policies[name], binding)
            for binding in bindings
            if (name := (binding.get("spec") or {}).get("policyName")) in policies
        ]

    async def check(self, question: Question, warnings: list[str]) -> None:
        """Refuse, or warn of, what a policy does not allow. Raises `ApiError`."""
        if not self._bound or question.row.group == _GROUP:
            return
        for policy, binding in self._bound:
            row = self._row(policy["spec"].get("matchConstraints") or {}, question)
            extra = binding["spec"].get("matchResources")
            if row is None or (extra and self._row(extra, question) is None):
                continue
            shown = await in_version(self._conversions, question, row)
            self._apply(policy, binding, shown, row, warnings)

    def _row(self, match: Object, question: Question) -> Row | None:
        """In the form of which row a match sees a write, or `None` where it does not."""
        rules = [
            rule
            for rule in match.get("resourceRules") or ()
            if not rule.get("resourceNames") or question.name in rule["resourceNames"]
        ]
        policy = match.get("matchPolicy", "Equivalent")
        as_webhook = {"rules": rules or _EVERYTHING, "matchPolicy": policy}
        excluded = {"rules": match.get("excludeResourceRules") or [], "matchPolicy": policy}
        rows = self.rows()
        row = wanted_as(as_webhook, question, rows)
        if row is None or wanted_as(excluded, question, rows) or not is_selected(match, question, self._store):
            return None
        return row

    def _apply(self, policy: Object, binding: Object, question: Question, row: Row, warnings: list[str]) -> None:
        spec = policy["spec"]
        request = review(question, row)["request"]
        namespace = self._store.get("namespaces", "", question.namespace) if question.namespace else None
        variables: Object = {
            "object": request["object"],
            "oldObject": request["oldObject"],
            "request": request,
            "namespaceObject": namespace.load() if namespace is not None else None,
            "authorizer": authority(question),
        }
        functions = {"check": checking(self._authorizer, question.user)}
        for params in self._params(policy, binding, question):
            for said, reason in _broken(spec, {**variables, "params": params}, functions):
                names = f"'{policy['metadata']['name']}' with binding '{binding['metadata']['name']}'"
                actions = binding["spec"].get("validationActions") or ["Deny"]
                if "Warn" in actions:
                    warnings.append(f"Validation failed for ValidatingAdmissionPolicy {names}: {said}")
                if "Deny" in actions:
                    text = f"ValidatingAdmissionPolicy {names} denied request: {said}"
                    raise _refusal(question, text, reason)

    def _params(self, policy: Object, binding: Object, question: Question) -> Iterator[Object | None]:
        """What a binding hands to its policy, one after the other. Raises `ApiError` 403 where it must be and is not."""
        kind, reference = policy["spec"].get("paramKind"), binding["spec"].get("paramRef")
        if not kind or not reference:
            yield None
            return
        row = next(
            (row for row in self.rows() if (row.api_version, row.kind) == (kind["apiVersion"], kind["kind"])), None
        )
        found: list[Object] = []
        if row is not None:
            namespace = (reference.get("namespace") or question.namespace) if row.namespaced else ""
            for stored in self._store.list(row.key, namespace):
                by_name = reference.get("name") == stored.name
                selector = reference.get("selector")
                if by_name or (selector is not None and selects(selector, stored.labels)):
                    found.append({"kind": row.kind, "apiVersion": row.api_version, **stored.load()})
        if not found and reference.get("parameterNotFoundAction", "Deny") == "Deny":
            names = f"'{policy['metadata']['name']}' with binding '{binding['metadata']['name']}'"
            text = f"ValidatingAdmissionPolicy {names} denied request: no params found for policy binding with `Deny` parameterNotFoundAction"
            raise _refusal(question, text, "Invalid")
        yield from found


_EVERYTHING = [
    {"operations": ["*"], "apiGroups": ["*"], "apiVersions": ["*"], "resources": ["*/*"], "scope": "*"},
    {"operations": ["*"], "apiGroups": ["*"], "apiVersions": ["*"], "resources": ["*"], "scope": "*"},
]


def _broken(spec: Object, variables: Object, functions: Functions) -> Iterator[tuple[str, str]]:
    """What the validations of a policy say, each with its reason."""
    fails = spec.get("failurePolicy", "Fail") == "Fail"
    own: Object = {}
    variables = {**variables, "variables": own}
    try:
        for condition in spec.get("matchConditions") or ():
            if evaluate(condition["expression"], variables, functions) is not True:
                return
    except CelError as error:
        if fails:
            yield f"match condition failed: {error}", "Invalid"
        return
    for variable in spec.get("variables") or ():
        try:
            own[variable["name"]] = evaluate(variable["expression"], variables, functions)
        except CelError:
            continue  # whoever uses it says so
    for validation in spec.get("validations") or ():
        expression = validation["expression"]
        try:
            if evaluate(expression, variables, functions) is True:
                continue
            said = message(validation, variables, f"failed expression: {expression}", functions)
        except CelError as error:
            if not fails:
                continue
            said = f"expression '{expression}' resulted in error: {error}"
        yield said, validation.get("reason") or "Invalid"


def _refusal(question: Question, text: str, reason: str) -> ApiError:
    error = forbidden(question.row.group, question.row.plural, question.name, text)
    error.reason, error.code = reason, _CODES.get(reason, 422)
    error.details = {**(error.details or {}), "causes": [{"message": text}]}
    return error
