"""Quantities in canonical form: no fraction, the largest suffix (apimachinery, `resource.Quantity`)."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable
from decimal import ROUND_CEILING, Decimal, localcontext

from cumulet.common.kubernetes.quantity import decimal, milli

_FORM = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([numkMGTPE]|[KMGTPE]i|[eE][+-]?\d{1,2})?", re.ASCII)
_LENGTH = 64
#: Larger quantities with a binary suffix are lowered to this.
_MOST = Decimal(2**63 - 1)
_DECIMAL = ("n", "u", "m", "", "k", "M", "G", "T", "P", "E")
_BINARY = ("", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei")

PATTERN = "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'"


@functools.lru_cache(maxsize=4096)
def canonical(text: str) -> str:
    """Return the canonical form. Raises `ValueError`."""
    if len(text) > _LENGTH:
        raise ValueError(PATTERN)
    return "0" if text in ("+", "-") else _canonical(text)  # as in Go's parser


def _canonical(text: str) -> str:
    match = _FORM.fullmatch(text)
    if match is None:
        raise ValueError(PATTERN)
    suffix = match[2] or ""
    with localcontext(prec=300):
        value = decimal(text)
        if suffix.endswith("i") and abs(value) > _MOST:
            value = _MOST.copy_sign(value)
        sign = "-" if value < 0 else ""
        if suffix.endswith("i") and not -1024 < value < 1024:
            number, index = int(abs(value).to_integral_value(ROUND_CEILING)), 0
            while number % 1024 == 0 and index < len(_BINARY) - 1:
                number, index = number // 1024, index + 1
            return f"{sign}{number}{_BINARY[index]}"
        number, index = int((abs(value) * Decimal(10) ** 9).to_integral_value(ROUND_CEILING)), 0
    if number == 0:
        return "0"
    while number % 1000 == 0 and index < len(_DECIMAL) - 1:
        number, index = number // 1000, index + 1
    if suffix[:1] in ("e", "E") and len(suffix) > 1 and index >= 3:
        while number % 1000 == 0:
            number, index = number // 1000, index + 1
        return f"{sign}{number}" + (f"e{(index - 3) * 3}" if index > 3 else "")
    return f"{sign}{number}{_DECIMAL[index]}"


def rounded(text: str) -> str:
    """Return a canonical quantity rounded up to thousandths."""
    return canonical(f"{milli(text)}m") if text.endswith(("n", "u")) else text


def total(amounts: Iterable[str]) -> str:
    """Return the sum in canonical form, with the suffixes of the first amount. Raises `ValueError`."""
    items = list(amounts)
    whole = sum(map(milli, items))
    if items and items[0].endswith("i") and whole % 1000 == 0:
        whole //= 1000
        index = 0
        while whole and whole % 1024 == 0 and index < len(_BINARY) - 1:
            whole, index = whole // 1024, index + 1
        return f"{whole}{_BINARY[index]}"
    thousandths = "e-3" if items and "e" in items[0] else "m"
    return _canonical(f"{whole}{thousandths}")  # the sum may be longer than a client's quantity
