"""Sizes and costs that are estimated before there are values (cel-go's `checker/cost.go`).

A size is a range of characters or elements; of a cost only the most is looked at. Numbers stop at 64 bits.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from cumulet.kube.cel.types import Type
from cumulet.kube.cel.values import size_of

MOST = 2**64 - 1
#: What going through a text once costs for each character, a regular expression for each of its own.
TRAVERSAL, REGEX = 0.1, 0.25
LIST, MAP, STRUCT = 10, 30, 40


class Size(NamedTuple):
    """At least and at most so many."""

    least: int
    most: int

    def plus(self, other: Size) -> Size:
        """Both together."""
        return Size(clip(self.least + other.least), clip(self.most + other.most))

    def times(self, other: Size) -> Size:
        """One for each of the other."""
        return Size(clip(self.least * other.least), clip(self.most * other.most))

    def union(self, other: Size) -> Size:
        """What spans both."""
        return Size(min(self.least, other.least), max(self.most, other.most))


UNKNOWN = Size(0, MOST)


def clip(number: int) -> int:
    """A number in 64 bits."""
    return min(number, MOST)


def scaled(number: int, factor: float) -> int:
    """A number by a factor, rounded up."""
    product = number * factor
    return MOST if product >= MOST else math.ceil(product)


class Argument(NamedTuple):
    """An argument of a call, as far as it is known: its type, size, the size of its elements, and a constant's value."""

    type: Type
    size: Size
    item: Size
    constant: Any = None


#: The most that a call costs beside its arguments, and the size of what it makes where that is known.
Estimate = tuple[int, Size | None]
Estimating = Callable[[Argument | None, Sequence[Argument]], Estimate | None]


def scan(factor: float = TRAVERSAL, argument: int = 0, *, keeps: bool = False) -> Estimating:
    """Of going through a text; `argument` is its place, the value before the name being the first.

    `keeps` says that what is made is as long as that.
    """

    def estimate(target: Argument | None, args: Sequence[Argument]) -> Estimate:
        every = args if target is None else [target, *args]
        size = every[argument].size
        return scaled(size.most, factor), size if keeps else None

    return estimate


def scan_cost(factor: float = TRAVERSAL, argument: int = 0) -> Callable[[Sequence[Any]], int]:
    """The same of values."""
    return lambda args: math.ceil(size_of(args[argument]) * factor)
