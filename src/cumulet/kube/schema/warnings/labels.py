"""Warnings about deprecated node labels (`pkg/api/node`)."""

from __future__ import annotations

from collections.abc import Iterator

from cumulet.common.kubernetes.objects import Object
from cumulet.kube.apimachinery.name_formats import label_value

_NEWER = {
    "beta.kubernetes.io/arch": "kubernetes.io/arch",
    "beta.kubernetes.io/os": "kubernetes.io/os",
    "failure-domain.beta.kubernetes.io/zone": "topology.kubernetes.io/zone",
    "failure-domain.beta.kubernetes.io/region": "topology.kubernetes.io/region",
    "beta.kubernetes.io/instance-type": "node.kubernetes.io/instance-type",
}
_SINCE = {"beta.kubernetes.io/arch": "v1.14", "beta.kubernetes.io/os": "v1.14"}


def deprecated(label: str) -> str:
    """Return the warning about a label, or an empty text."""
    return f'deprecated since {_SINCE.get(label, "v1.17")}; use "{_NEWER[label]}" instead' if label in _NEWER else ""


def node_term(term: Object, path: str, *, values: bool = False) -> Iterator[str]:
    """Yield the warnings about a term of a node selector."""
    for index, expression in enumerate(term.get("matchExpressions") or ()):
        label, where = expression.get("key"), f"{path}.matchExpressions[{index}]"
        if message := deprecated(label):
            yield f"{where}.key: {label} is {message}"
        if values:
            for number, value in enumerate(expression.get("values") or ()):
                for message in label_value(value):
                    yield f"{where}.values[{number}]: {value} is invalid, {message}"
