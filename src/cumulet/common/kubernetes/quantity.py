"""Resource quantities (apimachinery, `resource.Quantity`) as exact numbers."""

from __future__ import annotations

import functools
import re
from decimal import Decimal

_FORM = re.compile(r"([+-]?(?:\d+\.?\d*|\.\d+))(?:([numkMGTPE]|[KMGTPE]i)|[eE]([+-]?\d+))?", re.ASCII)
_SUFFIXES = {
    "n": Decimal(10) ** -9,
    "u": Decimal(10) ** -6,
    "m": Decimal(10) ** -3,
    "": Decimal(1),
    **{name: Decimal(1000) ** power for power, name in enumerate("kMGTPE", 1)},
    **{f"{name}i": Decimal(1024) ** power for power, name in enumerate("KMGTPE", 1)},
}


@functools.lru_cache(maxsize=4096)
def decimal(text: str | int | float) -> Decimal:
    """The value of a quantity. Raises `ValueError`."""
    match = _FORM.fullmatch(str(text).strip())
    if match is None:
        raise ValueError(f"{text!r} is not a quantity")
    number, suffix, exponent = match.groups()
    scale = Decimal(10) ** int(exponent) if exponent else _SUFFIXES[suffix or ""]
    return Decimal(number) * scale


@functools.lru_cache(maxsize=4096)
def milli(text: str | int | float) -> int:
    """The value in thousandths, rounded up as `Quantity.MilliValue` does. Raises `ValueError`."""
    value = decimal(text) * 1000
    whole = int(value)
    return whole + (value > whole)
