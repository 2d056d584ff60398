"""Matching of label selectors as objects contain them."""

from __future__ import annotations

from cumulet.common.kubernetes.objects import Object


def selects(selector: Object, labels: dict[str, str]) -> bool:
    """Whether a `metav1.LabelSelector` selects these labels. An empty selector selects everything."""
    for key, value in (selector.get("matchLabels") or {}).items():
        if labels.get(key) != value:
            return False
    for requirement in selector.get("matchExpressions") or ():
        key, values = requirement.get("key"), requirement.get("values") or []
        present = key in labels
        match requirement.get("operator"):
            case "In" if not (present and labels[key] in values):
                return False
            case "NotIn" if present and labels[key] in values:
                return False
            case "Exists" if not present:
                return False
            case "DoesNotExist" if present:
                return False
    return True
