"""The library of quantities (`cel/library/quantity.go`)."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from typing import ClassVar

from cumulet.common.kubernetes.quantity import decimal
from cumulet.kube.apimachinery.quantity import canonical
from cumulet.kube.cel.errors import CelError
from cumulet.kube.cel.functions import Library
from cumulet.kube.cel.opaque import Opaque
from cumulet.kube.cel.sizes import scan, scan_cost
from cumulet.kube.cel.values import INT_LEAST, INT_MOST

LIBRARY = Library()
_add = LIBRARY.add
#: The most characters of an amount. Each adds work for arbitrary-precision numbers.
_LENGTH = 256


@dataclass(frozen=True, slots=True)
class Quantity(Opaque):
    """A resource amount."""

    kind: ClassVar[str] = "kubernetes.Quantity"
    amount: Decimal


def _parsed(text: str) -> Quantity:
    """Parse an amount. Raises `CelError`."""
    try:
        if len(text) > _LENGTH:
            raise ValueError
        return Quantity(decimal(canonical(text)))
    except (ValueError, TypeError, ArithmeticError):
        raise CelError(
            "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'"
        ) from None


def _is(text: str) -> bool:
    try:
        _parsed(text)
    except CelError:
        return False
    return True


def _integer(value: Quantity) -> int:
    if not _is_integer(value):
        raise CelError("cannot convert value to integer")
    return int(value.amount)


def _is_integer(value: Quantity) -> bool:
    amount = value.amount
    return INT_LEAST <= amount <= INT_MOST and amount == amount.to_integral_value()


def _order(one: Quantity, other: Quantity) -> int:
    return int(one.amount > other.amount) - int(one.amount < other.amount)


def _other(value: Quantity | int) -> Decimal:
    return value.amount if isinstance(value, Quantity) else Decimal(value)


_add("quantity(string) kubernetes.Quantity", _parsed, scan_cost(), scan())
_add("isQuantity(string) bool", _is, scan_cost(), scan())
# Upstream declares this as a function, so there is no method form.
_add("sign(kubernetes.Quantity) int", lambda one: int(one.amount > 0) - int(one.amount < 0))
_add("(kubernetes.Quantity).isInteger() bool", _is_integer)
_add("(kubernetes.Quantity).asInteger() int", _integer)
_add("(kubernetes.Quantity).asApproximateFloat() double", lambda one: float(one.amount))
_add("(kubernetes.Quantity).isGreaterThan(kubernetes.Quantity) bool", lambda one, other: one.amount > other.amount)
_add("(kubernetes.Quantity).isLessThan(kubernetes.Quantity) bool", lambda one, other: one.amount < other.amount)
_add("(kubernetes.Quantity).compareTo(kubernetes.Quantity) int", _order)
for _kind in ("kubernetes.Quantity", "int"):
    _add(
        f"(kubernetes.Quantity).add({_kind}) kubernetes.Quantity",
        lambda one, other: Quantity(one.amount + _other(other)),
    )
    _add(
        f"(kubernetes.Quantity).sub({_kind}) kubernetes.Quantity",
        lambda one, other: Quantity(one.amount - _other(other)),
    )
