"""Label selectors, node selectors and taints, evaluated as in apimachinery (`labels`, `component-helpers/scheduling`)."""

from __future__ import annotations

import re
from collections.abc import Container, Iterable, Mapping

from cumulet.common.kubernetes.objects import (
    LabelSelector,
    LabelSelectorRequirement,
    NodeSelectorRequirement,
    NodeSelectorTerm,
    PodSpec,
    Taint,
    Toleration,
)

Labels = Mapping[str, str]

_WHOLE = re.compile(r"[+-]?[0-9]{1,19}")


def selects(selector: LabelSelector | None, labels: Labels) -> bool:
    """Whether a `metav1.LabelSelector` matches. `None` matches nothing, an empty selector everything."""
    if selector is None:
        return False
    if any(labels.get(key) != value for key, value in (selector.get("matchLabels") or {}).items()):
        return False
    return all(meets(requirement, labels) for requirement in selector.get("matchExpressions") or ())


def meets(requirement: LabelSelectorRequirement | NodeSelectorRequirement, labels: Labels) -> bool:
    """Whether labels meet one requirement of a label or node selector."""
    key, values = requirement["key"], requirement.get("values") or []
    present = key in labels
    match requirement["operator"]:
        case "In":
            return present and labels[key] in values
        case "NotIn":
            return not present or labels[key] not in values
        case "Exists":
            return present
        case "DoesNotExist":
            return not present
        case "Gt" | "Lt" as operator:
            mine, theirs = _whole(labels.get(key)), _whole(values[0] if values else None)
            if mine is None or theirs is None:
                return False
            return mine > theirs if operator == "Gt" else mine < theirs
    return False


def _whole(text: str | None) -> int | None:
    """A decimal number of 64 bits, or `None`, as Go's `strconv.ParseInt`."""
    if text is None or not _WHOLE.fullmatch(text):
        return None
    number = int(text)
    return number if -(1 << 63) <= number < 1 << 63 else None


def tolerates(tolerations: Iterable[Toleration], taint: Taint) -> bool:
    """Whether any of the tolerations matches the taint (core v1, `Toleration.ToleratesTaint`)."""
    for toleration in tolerations:
        if toleration.get("effect") not in (None, "", taint.get("effect")):
            continue
        if toleration.get("key") not in (None, "", taint["key"]):
            continue
        if toleration.get("operator", "Equal") == "Exists":
            return True
        if toleration.get("key") and (toleration.get("value") or "") == (taint.get("value") or ""):
            return True
    return False


def untolerated(
    taints: Iterable[Taint], tolerations: Iterable[Toleration], effects: Container[object]
) -> Taint | None:
    """The first taint that has one of the effects and is not tolerated."""
    for taint in taints:
        if taint.get("effect") in effects and not tolerates(tolerations, taint):
            return taint
    return None


def term_selects(term: NodeSelectorTerm, labels: Labels, name: str) -> bool:
    """Whether a node of that name matches one term of a node selector. An empty term matches no node."""
    expressions, fields = term.get("matchExpressions") or (), term.get("matchFields") or ()
    if not expressions and not fields:
        return False
    return all(meets(item, labels) for item in expressions) and all(
        meets(item, {"metadata.name": name}) for item in fields
    )


def selects_node(pod_spec: PodSpec, labels: Labels, name: str) -> bool:
    """Whether a pod's `nodeSelector` and required node affinity allow a node."""
    if any(labels.get(key) != value for key, value in (pod_spec.get("nodeSelector") or {}).items()):
        return False
    affinity = (pod_spec.get("affinity") or {}).get("nodeAffinity") or {}
    required = affinity.get("requiredDuringSchedulingIgnoredDuringExecution")
    return required is None or any(
        term_selects(term, labels, name) for term in required.get("nodeSelectorTerms") or ()
    )
