"""Where pods may run: tolerations, affinities, spreading (`pkg/apis/core/validation`)."""

from __future__ import annotations

import re

from cumulet.kube.schema.validation.causes import (
    LABEL_VALUE,
    LABEL_VALUE_MESSAGE,
    Causes,
    Object,
    duplicate,
    forbidden,
    invalid,
    qualified,
    required,
    unsupported,
)

_NODE_OPERATORS = ("In", "NotIn", "Exists", "DoesNotExist", "Gt", "Lt")
_NEEDED, _LIKED = "requiredDuringSchedulingIgnoredDuringExecution", "preferredDuringSchedulingIgnoredDuringExecution"


def affinity(found: Object, field: str) -> Causes:
    """What is wrong with affinities."""
    nodes = found.get("nodeAffinity") or {}
    where = f"{field}.nodeAffinity"
    if (needed := nodes.get(_NEEDED)) is not None:
        terms = needed.get("nodeSelectorTerms") or []
        if not terms:
            yield required(f"{where}.{_NEEDED}.nodeSelectorTerms", "must have at least one node selector term")
        for index, term in enumerate(terms):
            yield from _node_term(term, f"{where}.{_NEEDED}.nodeSelectorTerms[{index}]")
    for index, liked in enumerate(nodes.get(_LIKED) or ()):
        yield from _weight(liked, f"{where}.{_LIKED}[{index}]")
        yield from _node_term(liked.get("preference") or {}, f"{where}.{_LIKED}[{index}].preference")
    for kind in ("podAffinity", "podAntiAffinity"):
        pods = found.get(kind) or {}
        for index, term in enumerate(pods.get(_NEEDED) or ()):
            yield from _pod_term(term, f"{field}.{kind}.{_NEEDED}[{index}]")
        for index, liked in enumerate(pods.get(_LIKED) or ()):
            yield from _weight(liked, f"{field}.{kind}.{_LIKED}[{index}]")
            yield from _pod_term(
                liked.get("podAffinityTerm") or {}, f"{field}.{kind}.{_LIKED}[{index}].podAffinityTerm"
            )


def _weight(liked: Object, field: str) -> Causes:
    weight = liked.get("weight", 0)
    if not 1 <= weight <= 100:
        yield invalid(f"{field}.weight", weight, "must be in the range 1-100")


def _node_term(term: Object, field: str) -> Causes:
    for index, expression in enumerate(term.get("matchExpressions") or ()):
        where = f"{field}.matchExpressions[{index}]"
        operator, values = expression.get("operator", ""), expression.get("values") or []
        if operator not in _NODE_OPERATORS:
            yield invalid(f"{where}.operator", operator, "not a valid selector operator")
        elif operator in ("In", "NotIn") and not values:
            yield required(f"{where}.values", "must be specified when `operator` is 'In' or 'NotIn'")
        elif operator in ("Exists", "DoesNotExist") and values:
            yield forbidden(f"{where}.values", "may not be specified when `operator` is 'Exists' or 'DoesNotExist'")
        elif operator in ("Gt", "Lt") and len(values) != 1:
            yield required(f"{where}.values", "must be specified single value when `operator` is 'Lt' or 'Gt'")
        yield from qualified(expression.get("key", ""), f"{where}.key")


def _pod_term(term: Object, field: str) -> Causes:
    if (selector := term.get("labelSelector")) is not None:
        yield from label_selector(selector, f"{field}.labelSelector")
    key = term.get("topologyKey", "")
    if not key:
        yield required(f"{field}.topologyKey", "can not be empty")
    else:
        yield from qualified(key, f"{field}.topologyKey")


def label_selector(selector: Object, field: str) -> Causes:
    """What is wrong with a selector of labels (apimachinery, `ValidateLabelSelector`)."""
    for key, value in (selector.get("matchLabels") or {}).items():
        yield from qualified(key, f"{field}.matchLabels")
        if len(value) > 63 or not re.fullmatch(LABEL_VALUE, value):
            yield invalid(f"{field}.matchLabels", value, LABEL_VALUE_MESSAGE)
    for index, expression in enumerate(selector.get("matchExpressions") or ()):
        where = f"{field}.matchExpressions[{index}]"
        operator, values = expression.get("operator", ""), expression.get("values") or []
        if operator in ("In", "NotIn"):
            if not values:
                yield required(f"{where}.values", "must be specified when `operator` is 'In' or 'NotIn'")
        elif operator in ("Exists", "DoesNotExist"):
            if values:
                why = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'"
                yield forbidden(f"{where}.values", why)
        else:
            yield invalid(f"{where}.operator", operator, "not a valid selector operator")
        yield from qualified(expression.get("key", ""), f"{where}.key")


def spread(constraints: list[Object], field: str) -> Causes:
    """What is wrong with how pods are to be spread."""
    seen: set[tuple[str, str]] = set()
    ways = ("DoNotSchedule", "ScheduleAnyway")
    for index, constraint in enumerate(constraints):
        where = f"{field}[{index}]"
        skew, key, way = (
            constraint.get("maxSkew", 0),
            constraint.get("topologyKey", ""),
            constraint.get("whenUnsatisfiable", ""),
        )
        if skew <= 0:
            yield invalid(f"{where}.maxSkew", skew, "must be greater than zero")
        if not key:
            yield required(f"{where}.topologyKey", "can not be empty")
        if way not in ways:
            yield unsupported(f"{where}.whenUnsatisfiable", way, ways)
        if (key, way) in seen:
            yield duplicate(f"{where}.{{topologyKey, whenUnsatisfiable}}", f"{{{key}, {way}}}")
        seen.add((key, way))
        if (selector := constraint.get("labelSelector")) is not None:
            yield from label_selector(selector, f"{where}.labelSelector")


def toleration(toleration: Object, field: str) -> Causes:
    """What is wrong with a toleration."""
    operator = toleration.get("operator", "Equal")
    if key := toleration.get("key"):
        yield from qualified(key, f"{field}.key")
    elif operator != "Exists":
        yield invalid(
            f"{field}.operator",
            operator,
            'operator must be Exists when `key` is empty, which means "match all values and all keys"',
        )
    if operator == "Exists" and toleration.get("value"):
        yield invalid(f"{field}.operator", toleration["value"], "value must be empty when `operator` is 'Exists'")
    if operator not in ("Exists", "Equal", "Gt", "Lt"):
        yield unsupported(f"{field}.operator", operator, ("Equal", "Exists"))
    effects = ("NoExecute", "NoSchedule", "PreferNoSchedule")
    if (effect := toleration.get("effect")) and effect not in effects:
        yield unsupported(f"{field}.effect", effect, effects)
    if "tolerationSeconds" in toleration and toleration.get("effect") != "NoExecute":
        yield invalid(
            f"{field}.effect",
            toleration.get("effect", ""),
            "effect must be 'NoExecute' when `tolerationSeconds` is set",
        )
