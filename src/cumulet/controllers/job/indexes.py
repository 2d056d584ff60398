"""Completion indexes: sets of numbers as a job's status writes them, `0-2,5`, and the index of a pod."""

from __future__ import annotations

from collections.abc import Iterable

from cumulet.common.ascii import is_digits
from cumulet.controllers.controller import Object

LABEL = "batch.kubernetes.io/job-completion-index"


def parse(text: str | None) -> set[int]:
    """The numbers of `0-2,5`. Raises `ValueError`."""
    found: set[int] = set()
    for part in (text or "").split(","):
        if part:
            first, dash, last = part.partition("-")
            found.update(range(int(first), int(last if dash else first) + 1))
    return found


def render(numbers: Iterable[int]) -> str:
    """The reverse; three or more in a row are written as a range."""
    spans: list[list[int]] = []
    for number in sorted(numbers):
        if spans and number == spans[-1][1] + 1:
            spans[-1][1] = number
        else:
            spans.append([number, number])
    texts: list[str] = []
    for first, last in spans:
        texts += [f"{first}-{last}"] if last - first > 1 else [str(number) for number in range(first, last + 1)]
    return ",".join(texts)


def index_of(pod: Object) -> int | None:
    """The completion index of a pod, where it has one."""
    text = (pod["metadata"].get("annotations") or {}).get(LABEL, "")
    return int(text) if is_digits(text) else None
