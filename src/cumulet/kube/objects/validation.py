"""Validation of an object before it is stored: the rules of its kind, then the rules of a custom resource."""

from __future__ import annotations

from cumulet.common.kubernetes.objects import Object
from cumulet.kube.apimachinery.status import Cause, invalid
from cumulet.kube.catalog import custom_definitions, kinds
from cumulet.kube.catalog.resources import Row
from cumulet.kube.cel import PER_REQUEST
from cumulet.kube.cel.patience import within
from cumulet.kube.http.worker_threads import LARGE, offload
from cumulet.kube.http.write_context import WriteContext

#: Kinds with expressions, which may take long to parse.
_WITH_EXPRESSIONS = frozenset(
    (
        custom_definitions.KEY,
        *(
            f"{name}.admissionregistration.k8s.io"
            for name in (
                "mutatingadmissionpolicies",
                "mutatingwebhookconfigurations",
                "validatingadmissionpolicies",
                "validatingwebhookconfigurations",
            )
        ),
    )
)
#: The bytes of such an object from which on parsing may take long.
_MANY_EXPRESSIONS = 8 * 1024
#: Errors that keep validation rules from being evaluated (`customresource/strategy.go`, `hasBlockingErr`).
_BLOCKING = frozenset(
    (
        "FieldValueNotSupported",
        "FieldValueRequired",
        "FieldValueTooLong",
        "FieldValueTooMany",
        "FieldValueTypeInvalid",
    )
)
_UNCHECKED = (
    "Invalid value: null: some validation rules were not checked because the object was invalid; "
    "correct the existing errors to complete validation"
)


async def validate(row: Row, obj: Object, old: Object | None, by: WriteContext, subresource: str = "") -> None:
    """Validate an object, and its change from `old`; add warnings to `by`. Raises `ApiError` 422."""
    least = _MANY_EXPRESSIONS if row.key in _WITH_EXPRESSIONS else LARGE
    causes = await offload(by.size, lambda: kinds.validate(row, obj, old, subresource), least)
    if (custom_kind := row.custom) is not None and custom_kind.has_rules:
        if any(cause.reason in _BLOCKING for cause in causes):
            causes.append(Cause("<nil>", "FieldValueInvalid", _UNCHECKED))
        else:
            broken, warnings = await within(PER_REQUEST, lambda budget: custom_kind.broken(obj, old, budget))
            causes += broken
            by.warnings += warnings
    if causes:
        raise invalid(row.group, row.kind, obj["metadata"].get("name", ""), causes)
