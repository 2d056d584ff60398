"""Completion indexes: sets of numbers in the notation of the status of jobs, `0-2,5`, and the index of a pod."""

from __future__ import annotations

from collections.abc import Iterable

from cumulet.common.ascii import is_digits
from cumulet.common.kubernetes.objects import Pod

LABEL = "batch.kubernetes.io/job-completion-index"


def parse(text: str | None) -> set[int]:
    """The numbers of `0-2,5`. Raises `ValueError`."""
    numbers: set[int] = set()
    for part in (text or "").split(","):
        if part:
            first, dash, last = part.partition("-")
            numbers.update(range(int(first), int(last if dash else first) + 1))
    return numbers


def render(numbers: Iterable[int]) -> str:
    """The notation of a set of numbers. Three or more consecutive numbers form a range."""
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


def index_of(pod: Pod) -> int | None:
    """The completion index of a pod, if it has one."""
    text = (pod["metadata"].get("annotations") or {}).get(LABEL, "")
    return int(text) if is_digits(text) else None
