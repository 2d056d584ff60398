"""Validation of label and node selectors (apimachinery, `ValidateLabelSelector`; core, `ValidateNodeSelector`)."""

from __future__ import annotations

from collections.abc import Sequence

from cumulet.common.kubernetes.objects import Object
from cumulet.kube.apimachinery import name_formats
from cumulet.kube.schema.validation.field_errors import Causes, all_invalid, forbidden, invalid, required
from cumulet.kube.schema.validation.metadata import label_key, labels

_OPERATOR = "not a valid selector operator"


def label_selector(selector: Object | None, field: str, *, values: bool = True) -> Causes:
    """Validate a label selector, and the form of its values if `values` is set."""
    if not selector:
        return
    yield from labels(selector.get("matchLabels"), f"{field}.matchLabels")
    for index, expression in enumerate(selector.get("matchExpressions") or ()):
        yield from _expression(expression, f"{field}.matchExpressions[{index}]", values=values)


def _expression(expression: Object, field: str, *, values: bool, ordered: bool = False) -> Causes:
    operator, given = expression.get("operator", ""), expression.get("values") or []
    if operator in ("In", "NotIn"):
        if not given:
            yield required(f"{field}.values", "must be specified when `operator` is 'In' or 'NotIn'")
    elif operator in ("Exists", "DoesNotExist"):
        if given:
            yield forbidden(f"{field}.values", "may not be specified when `operator` is 'Exists' or 'DoesNotExist'")
    elif ordered and operator in ("Gt", "Lt"):
        if len(given) != 1:
            yield required(f"{field}.values", "must be specified single value when `operator` is 'Lt' or 'Gt'")
    else:
        yield invalid(f"{field}.operator", operator, _OPERATOR)
    yield from label_key(expression.get("key", ""), f"{field}.key")
    if values:
        for index, value in enumerate(given):
            yield from all_invalid(f"{field}.values[{index}]", value, name_formats.label_value(value))


def node_selector(selector: Object, field: str) -> Causes:
    """Validate a node selector."""
    terms = selector.get("nodeSelectorTerms") or []
    if not terms:
        yield required(f"{field}.nodeSelectorTerms", "must have at least one node selector term")
    for index, term in enumerate(terms):
        yield from node_term(term, f"{field}.nodeSelectorTerms[{index}]")


def node_term(term: Object, field: str, *, values: bool = True) -> Causes:
    """Validate a term of a node selector."""
    for index, expression in enumerate(term.get("matchExpressions") or ()):
        yield from _expression(expression, f"{field}.matchExpressions[{index}]", values=values, ordered=True)
    for index, expression in enumerate(term.get("matchFields") or ()):
        yield from _node_field(expression, f"{field}.matchFields[{index}]")


def _node_field(expression: Object, field: str) -> Causes:
    operator, given = expression.get("operator", ""), expression.get("values") or []
    if operator not in ("In", "NotIn"):
        yield invalid(f"{field}.operator", operator, _OPERATOR)
    elif len(given) != 1:
        why = "must be only one value when `operator` is 'In' or 'NotIn' for node field selector"
        yield required(f"{field}.values", why)
    if expression.get("key", "") != "metadata.name":
        yield invalid(f"{field}.key", expression.get("key", ""), "not a valid field selector key")
    else:
        for index, value in enumerate(given):
            yield from all_invalid(f"{field}.values[{index}]", value, name_formats.dns_subdomain(value))


def match_label_keys(
    selector: Object | None, field: str, matching: Sequence[str], other: Sequence[str] = ()
) -> Causes:
    """Validate label keys whose values come from the pod."""
    for name, keys in (("matchLabelKeys", matching), ("mismatchLabelKeys", other)):
        if not keys:
            continue
        if selector is None:
            yield forbidden(f"{field}.{name}", "must not be specified when labelSelector is not set")
            continue
        for index, key in enumerate(keys):
            yield from label_key(key, f"{field}.{name}[{index}]")
    places = {key: index for index, key in enumerate(matching)}
    seen = set((selector or {}).get("matchLabels") or ())
    for expression in (selector or {}).get("matchExpressions") or ():
        key = expression.get("key", "")
        if key in places and key in seen:
            yield invalid(f"{field}[{places[key]}]", key, "exists in both matchLabelKeys and labelSelector")
        seen.add(key)
    for index, key in enumerate(matching):
        if key in other:
            why = "exists in both matchLabelKeys and mismatchLabelKeys"
            yield invalid(f"{field}.matchLabelKeys[{index}]", key, why)
