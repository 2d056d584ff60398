"""The values of expressions, and their common operations (cel-go's `common/types`).

JSON values are used as decoded: `int` is `int`, `float` is `double`, a `dict` is a map or an object. Other values are
instances of `Uint`, `Timestamp`, `Duration`, `Optional`, `TypeValue`, and of the libraries' classes, whose `kind` is
the name of their type.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, TypeAlias

from cumulet.kube.apimachinery.json_types import Json
from cumulet.kube.cel.errors import CelError
from cumulet.kube.cel.opaque import Opaque
from cumulet.kube.cel.times import Duration, Timestamp

INT_MOST, INT_LEAST, UINT_MOST = 2**63 - 1, -(2**63), 2**64 - 1


class Uint(int):
    """An unsigned integer."""

    __slots__ = ()


#: A literal in an expression.
Constant: TypeAlias = bool | int | float | str | bytes | None
#: A key of a map.
Key: TypeAlias = str | int
#: A value of an expression. Its maps are `dict[str, Value]`, from JSON, or `dict[Key, Value]`. `Any` stands for both, as
#: a `dict` is invariant in its key.
Value: TypeAlias = bool | int | float | str | bytes | list["Value"] | dict[Any, "Value"] | Opaque | None


@dataclass(frozen=True, slots=True)
class Optional(Opaque):
    """A value that can be missing."""

    kind: ClassVar[str] = "optional"
    there: bool
    value: Value = None


NONE = Optional(False)


@dataclass(frozen=True, slots=True)
class TypeValue(Opaque):
    """A type as a value: the result of `type(x)`, or a type's name."""

    kind: ClassVar[str] = "type"
    name: str


class Lazy(Opaque):
    """An object whose fields are evaluated on first use. A failed field raises its error on each use."""

    kind: ClassVar[str] = "object"
    __slots__ = ("_find", "_found", "names")

    def __init__(self, find: Mapping[str, Callable[[], Value]]) -> None:
        self._find = find
        self._found: dict[str, Value] = {}
        self.names = find.keys()

    def get(self, name: str) -> Value:
        """Return a field. Raises `CelError`, and `KeyError` where it does not exist."""
        if name not in self._found:
            self._found[name] = self._find[name]()
        return self._found[name]


def _identity(value: Value) -> Hashable:
    """Return a hashable key that identifies a JSON value."""
    if isinstance(value, list):
        return ("list", *map(_identity, value))
    if isinstance(value, dict):
        return ("map", *sorted((key, _identity(item)) for key, item in value.items()))
    return (isinstance(value, bool), value)


class Unordered(list[Value]):
    """A list whose order is ignored."""

    def joined(self, other: list[Value]) -> Unordered:
        """Return the union with another list."""
        raise NotImplementedError

    def matches(self, other: list[Value]) -> bool:
        """Whether the other list has the same elements."""
        raise NotImplementedError


class SetList(Unordered):
    """A list that is a set: elements are unique, and their order is ignored."""

    def matches(self, other: list[Value]) -> bool:
        """Whether the other list has the same elements."""
        return len(self) == len(other) and set(map(_identity, self)) == set(map(_identity, other))

    def joined(self, other: list[Value]) -> SetList:
        """Return the union with another list."""
        known = set(map(_identity, self))
        return SetList([*self, *(item for item in other if _identity(item) not in known)])


class MapList(Unordered):
    """A list of objects that is keyed by some of their fields. The order is ignored."""

    def __init__(self, items: Iterable[Value], keys: tuple[str, ...]) -> None:
        super().__init__(items)
        self._keys = keys

    def _key(self, item: Value) -> Hashable:
        return _identity([item.get(key) for key in self._keys] if isinstance(item, dict) else item)

    def matches(self, other: list[Value]) -> bool:
        """Whether the other list has the same elements."""
        found = {self._key(item): item for item in other}
        if len(self) != len(other) or len(found) != len(other):
            return False
        return all((key := self._key(item)) in found and equal(item, found[key]) for item in self)

    def joined(self, other: list[Value]) -> MapList:
        """Return the union. Elements of the other list replace elements with the same key."""
        made = {self._key(item): item for item in self}
        made |= {self._key(item): item for item in other}
        return MapList(made.values(), self._keys)


_KINDS: dict[type, str] = {
    bool: "bool",
    int: "int",
    Uint: "uint",
    float: "double",
    str: "string",
    bytes: "bytes",
    list: "list",
    SetList: "list",
    MapList: "list",
    dict: "map",
    type(None): "null",
}


def kind_of(value: Value) -> str:
    """Return the kind of a value's type."""
    found = _KINDS.get(type(value))
    if found is not None:
        return found
    assert isinstance(value, Opaque), value
    return value.kind


#: Names of types that differ from their kinds.
_TYPE_NAMES = {
    "null": "null_type",
    "timestamp": "google.protobuf.Timestamp",
    "duration": "google.protobuf.Duration",
    "optional": "optional_type",
}


def type_of(value: Value) -> TypeValue:
    """Evaluate `type(value)`."""
    kind = kind_of(value)
    return TypeValue(_TYPE_NAMES.get(kind, kind))


def size_of(value: Value) -> int:
    """Return the size that determines costs: elements or characters, or one (`interpreter.actualSize`)."""
    if isinstance(value, str | bytes | list | dict):
        return len(value)
    if isinstance(value, Optional) and value.there:
        return size_of(value.value)
    return 1


def traversal(value: Value) -> int:
    """Return the cost of traversing a value (`library.traversalCost`)."""
    if isinstance(value, str | bytes):
        return len(value) // 10
    if isinstance(value, list):
        return sum(map(traversal, value))
    if isinstance(value, dict):
        return sum(traversal(key) + traversal(item) for key, item in value.items())
    return 1


def equal(one: Value, other: Value) -> bool:
    """Whether two values are equal. Numbers are compared across types. Other values of different types are never equal."""
    kind, second = type(one), type(other)
    if kind in _UNORDERED and isinstance(one, Unordered) and isinstance(other, list):
        return one.matches(other)
    if second in _UNORDERED and isinstance(other, Unordered) and isinstance(one, list):
        return other.matches(one)
    if kind is second:
        if type(one) is list and type(other) is list:
            return len(one) == len(other) and all(map(equal, one, other))
        if type(one) is dict and type(other) is dict:
            if len(one) != len(other):
                return False
            return all(key in other and equal(item, other[key]) for key, item in one.items())
        if type(one) is Optional and type(other) is Optional:
            return one.there == other.there and equal(one.value, other.value)
        return bool(one == other)
    if kind in _NUMBERS and second in _NUMBERS:
        return bool(one == other)
    return False


_UNORDERED = frozenset((SetList, MapList))
_NUMBERS = frozenset((int, Uint, float))


def weight(value: Value, most: int = 10**9) -> int:
    """Return the number of values inside a value, including itself, up to `most`."""
    count, stack = 0, [value]
    while stack and count < most:
        found = stack.pop()
        count += 1
        if isinstance(found, list):
            stack.extend(found)
        elif isinstance(found, dict):
            stack.extend(found.values())
    return count


def compare(one: Value, other: Value) -> int:
    """Return -1, 0 or 1. Raises `CelError` for values without an order."""
    kind, second = type(one), type(other)
    if (kind is second and kind in _ORDERED) or (kind in _NUMBERS and second in _NUMBERS):
        # The types are comparable, which no annotation can express.
        left: Any = one
        right: Any = other
        if left != left or right != right:
            raise CelError("NaN values cannot be ordered")
        return int(left > right) - int(left < right)
    raise no_overload()


_ORDERED = frozenset((bool, int, Uint, float, str, bytes, Timestamp, Duration))


def no_overload() -> CelError:
    """Return the error for a function without an overload for the arguments' types."""
    return CelError("no such overload")


def as_json(value: Value) -> Json:
    """Return a value as JSON. Raises `CelError` for a value without a JSON form."""
    match value:
        case None | bool() | str():
            return value
        case int():
            return int(value)
        case float():
            if not math.isfinite(value):
                raise CelError("unsupported JSON value: the number is not finite")
            return value
        case bytes():
            return base64.b64encode(value).decode()
        case list():
            return [as_json(item) for item in value]
        case dict():
            return {_key(key): as_json(item) for key, item in value.items()}
        case Timestamp() | Duration():
            return str(value)
        case Optional():
            return as_json(value.value)
    raise CelError(f"unsupported conversion to JSON of a value of type {type_of(value).name}")


def _key(key: Key) -> str:
    if isinstance(key, str):
        return key
    raise CelError("unsupported JSON value: the keys of a map must be strings")


def items_of(value: Value) -> Iterable[Value]:
    """Return the values that a one-variable fold iterates: the items of a list, or the keys of a map."""
    if isinstance(value, list | dict):
        return value
    raise no_overload()
