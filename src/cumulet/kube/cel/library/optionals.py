"""Optional values (cel-go's `cel/library.go`, `OptionalTypes`)."""

from __future__ import annotations

from collections.abc import Callable
from typing import NoReturn

from cumulet.kube.cel.errors import CelError
from cumulet.kube.cel.functions import Library
from cumulet.kube.cel.times import Duration, Timestamp
from cumulet.kube.cel.values import NONE, Optional, Value, no_overload

LIBRARY = Library()
_add = LIBRARY.add
_EPOCH = -62135596800 * 10**9


def _is_zero(value: Value) -> bool:
    match value:
        case Duration():
            return not value.ns
        case Timestamp():
            return value.ns == _EPOCH
        case Optional():
            return not value.there
        case None | bool() | int() | float() | str() | bytes() | list() | dict():
            return not value
    return False


def _value(value: Optional) -> Value:
    if not value.there:
        raise CelError("optional.none() dereference")
    return value.value


def _unwrapped(items: list[Value]) -> list[Value]:
    found = [item for item in items if isinstance(item, Optional)]
    if len(found) != len(items):
        raise no_overload()
    return [item.value for item in found if item.there]


def _indexed(index: int) -> Callable[[list[Value]], Optional]:
    return lambda items: Optional(True, items[index]) if items else NONE


_add("optional.of(A) optional<A>", lambda value: Optional(True, value))
_add("optional.ofNonZeroValue(A) optional<A>", lambda value: NONE if _is_zero(value) else Optional(True, value))
_add("optional.none() optional<A>", lambda: NONE)
_add("optional.unwrap(list<optional<A>>) list<A>", _unwrapped, lambda items: 1 + len(items) // 10)
_add("(list<optional<A>>).unwrapOpt() list<A>", _unwrapped, lambda items: 1 + len(items) // 10)
_add("(optional<A>).value() A", _value)
_add("(optional<A>).hasValue() bool", lambda value: value.there)
_add("(optional<A>).or(optional<A>) optional<A>", lambda one, other: one if one.there else other, name="or")
_add("(optional<A>).orValue(A) A", lambda one, other: one.value if one.there else other, name="or_value")
_add("(list<A>).first() optional<A>", _indexed(0))
_add("(list<A>).last() optional<A>", _indexed(-1))


def _missing(*args: Value) -> NoReturn:
    raise no_overload()


# The interpreter evaluates these itself.
_add("_[?_](list<A>, int) optional<A>", _missing, name="list_optindex")
_add("_[?_](optional<list<A>>, int) optional<A>", _missing)
_add("_[?_](map<A, B>, A) optional<B>", _missing, name="map_optindex")
_add("_[?_](optional<map<A, B>>, A) optional<B>", _missing)
_add("_[_](optional<list<A>>, int) optional<A>", _missing)
_add("_[_](optional<map<A, B>>, A) optional<B>", _missing)
