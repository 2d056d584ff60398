"""The truth tables of selectors: apimachinery's `labels.Requirement.Matches` and core v1's `Toleration.ToleratesTaint`."""

from __future__ import annotations

import pytest

from cumulet.common.kubernetes.objects import (
    LabelSelector,
    LabelSelectorRequirement,
    NodeSelector,
    NodeSelectorRequirement,
    NodeSelectorTerm,
    PodSpec,
    Toleration,
)
from cumulet.common.kubernetes.selection import selects, selects_node, term_selects, tolerates

#: Operator and values against an object without the label, and with it as `a`, `b`, empty, `5` and `07`.
LABELS: tuple[dict[str, str], ...] = ({}, {"k": "a"}, {"k": "b"}, {"k": ""}, {"k": "5"}, {"k": "07"})
TABLE: list[tuple[str, list[str] | None, tuple[int, ...]]] = [
    ("In", ["a"], (0, 1, 0, 0, 0, 0)),
    ("In", ["a", "b"], (0, 1, 1, 0, 0, 0)),
    ("In", [""], (0, 0, 0, 1, 0, 0)),
    ("NotIn", ["a"], (1, 0, 1, 1, 1, 1)),
    ("NotIn", ["a", "b"], (1, 0, 0, 1, 1, 1)),
    ("NotIn", [""], (1, 1, 1, 0, 1, 1)),
    ("Exists", None, (0, 1, 1, 1, 1, 1)),
    ("DoesNotExist", None, (1, 0, 0, 0, 0, 0)),
    ("Gt", ["4"], (0, 0, 0, 0, 1, 1)),
    ("Gt", ["5"], (0, 0, 0, 0, 0, 1)),
    ("Lt", ["7"], (0, 0, 0, 0, 1, 0)),
    ("Lt", ["8"], (0, 0, 0, 0, 1, 1)),
    ("Gt", ["x"], (0, 0, 0, 0, 0, 0)),
    ("Gt", [], (0, 0, 0, 0, 0, 0)),
    ("Unknown", ["a"], (0, 0, 0, 0, 0, 0)),
]


@pytest.mark.parametrize(("operator", "values", "wanted"), TABLE)
def test_each_operator(operator: str, values: list[str] | None, wanted: tuple[int, ...]) -> None:
    of_labels: LabelSelectorRequirement = {"key": "k", "operator": operator}
    of_nodes: NodeSelectorRequirement = {"key": "k", "operator": operator}
    if values is not None:
        of_labels["values"] = of_nodes["values"] = values
    assert tuple(int(selects({"matchExpressions": [of_labels]}, labels)) for labels in LABELS) == wanted
    assert tuple(int(term_selects({"matchExpressions": [of_nodes]}, labels, "n")) for labels in LABELS) == wanted
    required: NodeSelector = {"nodeSelectorTerms": [{"matchExpressions": [of_nodes]}]}
    spec: PodSpec = {"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": required}}}
    assert tuple(int(selects_node(spec, labels, "n")) for labels in LABELS) == wanted


@pytest.mark.parametrize("value", ["٥", "5_0", " 5", "5.0", "0x5", "9" * 30])
def test_what_is_no_number_is_neither_greater_nor_less(value: str) -> None:
    for operator in ("Gt", "Lt"):
        one: LabelSelectorRequirement = {"key": "k", "operator": operator, "values": ["1"]}
        other: LabelSelectorRequirement = {"key": "k", "operator": operator, "values": [value]}
        assert not selects({"matchExpressions": [one]}, {"k": value})
        assert not selects({"matchExpressions": [other]}, {"k": "1"})


@pytest.mark.parametrize(
    ("selector", "labels", "wanted"),
    [
        (None, {"k": "a"}, False),
        ({}, {}, True),
        ({}, {"k": "a"}, True),
        ({"matchLabels": {"k": "a"}}, {}, False),
        ({"matchLabels": {"k": "a"}}, {"k": "a", "l": "b"}, True),
        ({"matchLabels": {"k": "a", "l": "c"}}, {"k": "a", "l": "b"}, False),
        ({"matchLabels": {"k": "a"}, "matchExpressions": [{"key": "l", "operator": "Exists"}]}, {"k": "a"}, False),
        (
            {"matchLabels": {"k": "a"}, "matchExpressions": [{"key": "l", "operator": "Exists"}]},
            {"k": "a", "l": ""},
            True,
        ),
    ],
)
def test_the_parts_of_a_selector_all_count(
    selector: LabelSelector | None, labels: dict[str, str], wanted: bool
) -> None:
    assert selects(selector, labels) is wanted


def test_terms_of_nodes() -> None:
    assert not term_selects({}, {"k": "a"}, "n")
    by_name: NodeSelectorTerm = {"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["n"]}]}
    assert term_selects(by_name, {}, "n")
    assert not term_selects(by_name, {}, "m")
    assert selects_node({}, {}, "n")
    assert not selects_node({"nodeSelector": {"k": "a"}}, {"k": "b"}, "n")


@pytest.mark.parametrize(
    ("toleration", "wanted"),
    [
        ({"operator": "Exists"}, True),
        ({"key": "k", "operator": "Exists"}, True),
        ({"key": "k", "operator": "Exists", "effect": "NoExecute"}, False),
        ({"key": "l", "operator": "Exists"}, False),
        ({"key": "k", "value": "a"}, True),
        ({"key": "k", "value": "b"}, False),
        ({"key": "k", "operator": "Equal", "value": "a", "effect": "NoSchedule"}, True),
        ({"key": "k"}, False),
        ({"value": "a"}, False),
    ],
)
def test_tolerations(toleration: Toleration, wanted: bool) -> None:
    assert tolerates([toleration], {"key": "k", "value": "a", "effect": "NoSchedule"}) is wanted
    assert not tolerates([], {"key": "k", "value": "a", "effect": "NoSchedule"})
