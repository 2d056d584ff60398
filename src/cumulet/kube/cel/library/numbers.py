"""Numbers in Go's format."""

from __future__ import annotations

import math
from decimal import Decimal


def shortest(number: float) -> str:
    """Return the shortest digits that identify a number, with an exponent where that is shorter (`%g`)."""
    if not math.isfinite(number):
        return "NaN" if math.isnan(number) else ("+Inf" if number > 0 else "-Inf")
    sign, found, exponent = Decimal(repr(number)).normalize().as_tuple()
    digits = "".join(map(str, found))
    assert isinstance(exponent, int)
    point = len(digits) + exponent - 1
    start = "-" if sign else ""
    if number == 0:
        return f"{start}0"
    if point < -4 or point >= 6:
        rest = f".{digits[1:]}" if len(digits) > 1 else ""
        return f"{start}{digits[0]}{rest}e{'-' if point < 0 else '+'}{abs(point):02d}"
    if point < 0:
        return f"{start}0.{'0' * (-point - 1)}{digits}"
    whole = digits[: point + 1].ljust(point + 1, "0")
    return f"{start}{whole}.{digits[point + 1 :]}" if len(digits) > point + 1 else f"{start}{whole}"
