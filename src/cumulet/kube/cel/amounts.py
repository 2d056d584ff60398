"""The library of quantities (`cel/library/quantity.go`)."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from typing import Any

from cumulet.common.kubernetes.quantity import decimal
from cumulet.kube.schema.quantity import canonical

_QUANTITY = "k8s.io/quantity"


def _quantity(text: str) -> dict[str, str]:
    return {_QUANTITY: canonical(text)}


def _is_quantity(text: Any) -> bool:
    try:
        canonical(text)
    except (ValueError, TypeError):
        return False
    return True


def _amount(value: Any) -> Decimal:
    return decimal(value[_QUANTITY]) if isinstance(value, dict) else Decimal(value)


def _of(amount: Decimal) -> dict[str, str]:
    return _quantity(f"{amount:f}")


def _sign(*arguments: Any) -> int:
    """Of a quantity, and `math.sign`."""
    amount = _amount(arguments[-1])
    return (amount > 0) - (amount < 0)


FUNCTIONS: dict[str, Callable[..., Any]] = {
    "quantity": _quantity,
    "isQuantity": _is_quantity,
    "isInteger": lambda value: _amount(value) == _amount(value).to_integral_value(),
    "asInteger": lambda value: int(_amount(value)),
    "asApproximateFloat": lambda value: float(_amount(value)),
    "sign": _sign,
    "isGreaterThan": lambda one, other: _amount(one) > _amount(other),
    "isLessThan": lambda one, other: _amount(one) < _amount(other),
    "compareTo": lambda one, other: (_amount(one) > _amount(other)) - (_amount(one) < _amount(other)),
    "add": lambda one, other: _of(_amount(one) + _amount(other)),
    "sub": lambda one, other: _of(_amount(one) - _amount(other)),
}
