"""Expressions of the Common Expression Language, with the functions that Kubernetes adds (`k8s.io/apiserver/pkg/cel`).

Optional field selection (`a.?b`), the authorizer, and the libraries for URLs and addresses are not there: an
expression that uses them is refused when it is written, or fails when it is evaluated.
"""

from __future__ import annotations

import functools
import itertools
import re
from collections.abc import Callable
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from cumulet.common.kubernetes.quantity import decimal
from cumulet.kube.schema.quantity import canonical

if TYPE_CHECKING:
    import cel

_LENGTH = 16 * 1024
_QUANTITY = "k8s.io/quantity"


class CelError(Exception):
    """An expression cannot be read, or has no value."""


def check(expression: str) -> None:
    """Raises `CelError` where an expression cannot be read."""
    _compiled(expression)


def evaluate(expression: str, variables: dict[str, Any]) -> Any:
    """The value of an expression. Raises `CelError`."""
    import cel

    program = _compiled(expression)
    try:
        return program.execute(cel.Context(variables=variables, functions=_FUNCTIONS))
    except KeyError as error:
        raise CelError(f"no such key: {str(error).strip(chr(39))}") from None
    except (ValueError, TypeError, ArithmeticError, RuntimeError, IndexError, RecursionError) as error:
        raise CelError(str(error)) from None


def message(rule: dict[str, Any], variables: dict[str, Any], otherwise: str) -> str:
    """What a rule says of what it does not allow: the value of its `messageExpression`, its `message`, or another text."""
    if expression := rule.get("messageExpression"):
        try:
            found = evaluate(expression, variables)
            if isinstance(found, str) and found.strip():
                return found
        except CelError:
            pass  # then what is written is said
    return str(rule.get("message") or otherwise)


@functools.lru_cache(maxsize=1024)
def _compiled(expression: str) -> cel.Program:
    # Most servers never see an expression.
    import cel

    if len(expression) > _LENGTH:
        raise CelError(f"the expression is longer than {_LENGTH} bytes")
    try:
        return cel.compile(expression)
    except (ValueError, RecursionError) as error:
        raise CelError(f"compilation failed: {error}") from None


def _find(text: str, pattern: str) -> str:
    found = re.search(pattern, text)
    return found[0] if found else ""


def _find_all(text: str, pattern: str, limit: int = -1) -> list[str]:
    found = [match[0] for match in re.finditer(pattern, text)]
    return found if limit < 0 else found[:limit]


def _index_of(where: Any, what: Any) -> int:
    if isinstance(where, str):
        return where.find(what)
    return where.index(what) if what in where else -1


def _last_index_of(where: Any, what: Any) -> int:
    if isinstance(where, str):
        return where.rfind(what)
    return len(where) - 1 - where[::-1].index(what) if what in where else -1


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


_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "sum": sum,
    "min": min,
    "max": max,
    "isSorted": lambda items: all(one <= other for one, other in itertools.pairwise(items)),
    "indexOf": _index_of,
    "lastIndexOf": _last_index_of,
    "find": _find,
    "findAll": _find_all,
    "lowerAscii": lambda text: text.lower(),
    "upperAscii": lambda text: text.upper(),
    "replace": lambda text, old, new, count=-1: text.replace(old, new, count),
    "split": lambda text, by, limit=-1: text.split(by, limit - 1 if limit > 0 else -1),
    "join": lambda items, by="": by.join(items),
    "substring": lambda text, start, end=None: text[start:end],
    "trim": lambda text: text.strip(),
    "charAt": lambda text, index: text[index : index + 1],
    "reverse": lambda value: value[::-1],
    "quantity": _quantity,
    "isQuantity": _is_quantity,
    "isInteger": lambda value: _amount(value) == _amount(value).to_integral_value(),
    "asInteger": lambda value: int(_amount(value)),
    "asApproximateFloat": lambda value: float(_amount(value)),
    "sign": lambda value: (_amount(value) > 0) - (_amount(value) < 0),
    "isGreaterThan": lambda one, other: _amount(one) > _amount(other),
    "isLessThan": lambda one, other: _amount(one) < _amount(other),
    "compareTo": lambda one, other: (_amount(one) > _amount(other)) - (_amount(one) < _amount(other)),
    "add": lambda one, other: _of(_amount(one) + _amount(other)),
    "sub": lambda one, other: _of(_amount(one) - _amount(other)),
}
