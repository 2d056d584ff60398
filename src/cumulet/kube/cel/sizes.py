"""Estimates of sizes and costs, before values are known (cel-go's `checker/cost.go`).

A size is a range of characters or elements. A cost is its maximum. Numbers saturate at 64 bits.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

from cumulet.kube.cel.types import Type
from cumulet.kube.cel.values import Value, size_of

MOST = 2**64 - 1
#: The cost for each character of scanning a text, and for each character of a regular expression.
TRAVERSAL, REGEX = 0.1, 0.25
LIST, MAP, STRUCT = 10, 30, 40


class Size(NamedTuple):
    """A minimum and a maximum."""

    least: int
    most: int

    def plus(self, other: Size) -> Size:
        """Return the sum of two sizes."""
        return Size(clip(self.least + other.least), clip(self.most + other.most))

    def times(self, other: Size) -> Size:
        """Return the product of two sizes."""
        return Size(clip(self.least * other.least), clip(self.most * other.most))

    def union(self, other: Size) -> Size:
        """Return the range that includes both sizes."""
        return Size(min(self.least, other.least), max(self.most, other.most))


UNKNOWN = Size(0, MOST)


def clip(number: int) -> int:
    """Limit a number to 64 bits."""
    return min(number, MOST)


def scaled(number: int, factor: float) -> int:
    """Multiply a number by a factor and round up."""
    product = number * factor
    return MOST if product >= MOST else math.ceil(product)


class Argument(NamedTuple):
    """The known facts about an argument: its type, its size, the size of its elements, and the value of a constant."""

    type: Type
    size: Size
    item: Size
    constant: Value = None


#: Returns the maximum cost of a call besides its arguments, and the size of its result where known.
Estimate = tuple[int, Size | None]
Estimating = Callable[[Argument | None, Sequence[Argument]], Estimate | None]


def scan(factor: float = TRAVERSAL, argument: int = 0, *, keeps: bool = False) -> Estimating:
    """Return the estimate for scanning a text at place `argument`. The value before the name is the first argument.

    With `keeps`, the result is as long as the text.
    """

    def estimate(target: Argument | None, args: Sequence[Argument]) -> Estimate:
        every = args if target is None else [target, *args]
        size = every[argument].size
        return scaled(size.most, factor), size if keeps else None

    return estimate


def scan_cost(factor: float = TRAVERSAL, argument: int = 0) -> Callable[..., int]:
    """Return the cost function that corresponds to `scan`, for known values."""
    return lambda *args: math.ceil(size_of(args[argument]) * factor)
