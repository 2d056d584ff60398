"""Validation of tolerations, affinities and topology spread (`pkg/apis/core/validation`)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from cumulet.common.kubernetes.objects import Object
from cumulet.kube.apimachinery import name_formats
from cumulet.kube.schema.validation.field_errors import Causes, all_invalid, duplicate, invalid, required, unsupported
from cumulet.kube.schema.validation.metadata import label_key
from cumulet.kube.schema.validation.selectors import label_selector, match_label_keys, node_selector, node_term

EFFECTS = ("NoSchedule", "PreferNoSchedule", "NoExecute")
_NEEDED, _LIKED = "requiredDuringSchedulingIgnoredDuringExecution", "preferredDuringSchedulingIgnoredDuringExecution"
_WEIGHT = "must be in the range 1-100"
_WAYS = ("DoNotSchedule", "ScheduleAnyway")


def affinity(rules: Object, field: str) -> Causes:
    """Validate affinities."""
    nodes = rules.get("nodeAffinity") or {}
    where = f"{field}.nodeAffinity"
    if (needed := nodes.get(_NEEDED)) is not None:
        yield from node_selector(needed, f"{where}.{_NEEDED}")
    for index, liked in enumerate(nodes.get(_LIKED) or ()):
        yield from _weight(liked, f"{where}.{_LIKED}[{index}]")
        yield from node_term(liked.get("preference") or {}, f"{where}.{_LIKED}[{index}].preference", values=False)
    for kind in ("podAffinity", "podAntiAffinity"):
        pods = rules.get(kind) or {}
        for index, term in enumerate(pods.get(_NEEDED) or ()):
            yield from _pod_term(term, f"{field}.{kind}.{_NEEDED}[{index}]")
        for index, liked in enumerate(pods.get(_LIKED) or ()):
            where = f"{field}.{kind}.{_LIKED}[{index}]"
            yield from _weight(liked, where)
            yield from _pod_term(liked.get("podAffinityTerm") or {}, f"{where}.podAffinityTerm")


def _weight(liked: Object, field: str) -> Causes:
    weight = liked.get("weight", 0)
    if not 1 <= weight <= 100:
        yield invalid(f"{field}.weight", weight, _WEIGHT)


def _pod_term(term: Object, field: str) -> Causes:
    selector = term.get("labelSelector")
    yield from label_selector(selector, f"{field}.labelSelector")
    yield from label_selector(term.get("namespaceSelector"), f"{field}.namespaceSelector")
    for name in term.get("namespaces") or ():
        yield from all_invalid(f"{field}.namespace", name, name_formats.dns_label(name))
    keys = term.get("matchLabelKeys") or [], term.get("mismatchLabelKeys") or []
    yield from match_label_keys(selector, field, *keys)
    key = term.get("topologyKey", "")
    if not key:
        yield required(f"{field}.topologyKey", "can not be empty")
    yield from label_key(key, f"{field}.topologyKey")


def spread(constraints: Sequence[Object], field: str) -> Causes:
    """Validate topology spread constraints."""
    for index, constraint in enumerate(constraints):
        yield from _spread(constraint, constraints[index + 1 :], f"{field}[{index}]")


def _spread(constraint: Object, others: Iterable[Object], field: str) -> Causes:
    skew, key = constraint.get("maxSkew", 0), constraint.get("topologyKey", "")
    way = constraint.get("whenUnsatisfiable", "")
    if skew <= 0:
        yield invalid(f"{field}.maxSkew", skew, name_formats.NOT_POSITIVE)
    if not key:
        yield required(f"{field}.topologyKey", "can not be empty")
    if way not in _WAYS:
        yield unsupported(f"{field}.whenUnsatisfiable", way, _WAYS)
    if any((key, way) == (other.get("topologyKey", ""), other.get("whenUnsatisfiable", "")) for other in others):
        yield duplicate(f"{field}.{{topologyKey, whenUnsatisfiable}}", f"{{{key}, {way}}}")
    if (domains := constraint.get("minDomains")) is not None:
        if domains <= 0:
            yield invalid(f"{field}.minDomains", domains, name_formats.NOT_POSITIVE)
        if way != "DoNotSchedule":
            why = f"can only use minDomains if whenUnsatisfiable=DoNotSchedule, not {way}"
            yield invalid(f"{field}.minDomains", domains, why)
    for name in ("nodeAffinityPolicy", "nodeTaintsPolicy"):
        if constraint.get(name) not in (None, "Honor", "Ignore"):
            yield unsupported(f"{field}.{name}", constraint[name], ("Honor", "Ignore"))
    selector = constraint.get("labelSelector")
    yield from match_label_keys(selector, field, constraint.get("matchLabelKeys") or [])
    yield from label_selector(selector, f"{field}.labelSelector")


def tolerations(entries: Iterable[Object], field: str) -> Causes:
    """Validate tolerations."""
    for index, toleration in enumerate(entries):
        yield from _toleration(toleration, f"{field}[{index}]")


def _toleration(toleration: Object, field: str) -> Causes:
    operator, key = toleration.get("operator", ""), toleration.get("key")
    value, effect = toleration.get("value", ""), toleration.get("effect", "")
    if key:
        yield from label_key(key, f"{field}.key")
    elif operator != "Exists":
        why = 'operator must be Exists when `key` is empty, which means "match all values and all keys"'
        yield invalid(f"{field}.operator", operator, why)
    if toleration.get("tolerationSeconds") is not None and effect != "NoExecute":
        yield invalid(f"{field}.effect", effect, "effect must be 'NoExecute' when `tolerationSeconds` is set")
    if operator in ("", "Equal"):
        if messages := name_formats.label_value(value):
            yield invalid(f"{field}.operator", value, ";".join(messages))
    elif operator == "Exists":
        if value:
            yield invalid(f"{field}.operator", value, "value must be empty when `operator` is 'Exists'")
    elif operator in ("Gt", "Lt"):
        yield unsupported(f"{field}.operator", operator, ("Equal", "Exists", "Lt", "Gt"), in_order=True)
    else:
        yield unsupported(f"{field}.operator", operator, ("Equal", "Exists"))
    if effect:
        yield from taint_effect(effect, f"{field}.effect")


def taint_effect(effect: str, field: str) -> Causes:
    """Validate the effect of a taint."""
    if effect not in EFFECTS:
        yield unsupported(field, effect, EFFECTS, in_order=True)
