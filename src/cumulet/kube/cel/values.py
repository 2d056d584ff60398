"""The values of expressions, and their common operations (cel-go's `common/types`).

JSON values are used as decoded: `int` is `int`, `float` is `double`, a `dict` is a map or an object. Other values are
instances of `Uint`, `Timestamp`, `Duration`, `Optional`, `TypeValue`, and of the libraries' classes, whose `kind` is
the name of their type.
"""

from __future__ import annotations

import base64
import math
import re
from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from typing import Any, ClassVar, TypeAlias

from cumulet.kube.apimachinery.json_types import Json
from cumulet.kube.cel.errors import CelError

_SECOND = 10**9
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_FIRST, _LAST = -62135596800 * _SECOND, 253402300800 * _SECOND - 1
_UNITS = {
    "ns": 1,
    "us": 1000,
    "µs": 1000,
    "μs": 1000,
    "ms": 10**6,
    "s": _SECOND,
    "m": 60 * _SECOND,
    "h": 3600 * _SECOND,
}
_DURATION = re.compile(r"([0-9]+(?:\.[0-9]*)?|\.[0-9]+)(ns|us|µs|μs|ms|s|m|h)")
_RFC3339 = re.compile(
    r"([0-9]{4})-([0-9]{2})-([0-9]{2})[Tt]([0-9]{2}):([0-9]{2}):([0-9]{2})(?:\.([0-9]{1,30}))?(Z|z|[+-][0-9]{2}:[0-9]{2})"
)
INT_MOST, INT_LEAST, UINT_MOST = 2**63 - 1, -(2**63), 2**64 - 1


class Uint(int):
    """An unsigned integer."""

    __slots__ = ()


class Opaque:
    """A value of a type that JSON lacks. `kind` is the type's name."""

    kind: ClassVar[str]
    __slots__ = ()


#: A literal in an expression.
Constant: TypeAlias = bool | int | float | str | bytes | None
#: A key of a map.
Key: TypeAlias = str | int
#: A value of an expression. Its maps are `dict[str, Value]`, from JSON, or `dict[Key, Value]`. `Any` stands for both, as
#: a `dict` is invariant in its key.
Value: TypeAlias = bool | int | float | str | bytes | list["Value"] | dict[Any, "Value"] | Opaque | None


@dataclass(frozen=True, slots=True, order=True)
class Timestamp(Opaque):
    """A moment, in nanoseconds since 1970."""

    kind: ClassVar[str] = "timestamp"
    ns: int

    @classmethod
    def of(cls, ns: int) -> Timestamp:
        """Return the moment. Raises `CelError` outside the years 1 to 9999."""
        if not _FIRST <= ns <= _LAST:
            raise CelError("timestamp overflow")
        return cls(ns)

    @classmethod
    def parse(cls, text: str) -> Timestamp:
        """Parse RFC 3339. Raises `CelError`."""
        match = _RFC3339.fullmatch(text)
        if match is not None:
            *numbers, fraction, zone = match.groups()
            try:
                year, month, day, hour, minute, second = map(int, numbers)
                made = datetime(year, month, day, hour, minute, second, tzinfo=UTC)
                offset = 0
                if zone not in "Zz":
                    hours, minutes = int(zone[1:3]), int(zone[4:])
                    if hours > 23 or minutes > 59:
                        raise ValueError
                    offset = (hours * 60 + minutes) * (-60 if zone[0] == "-" else 60)
                seconds = (made - _EPOCH) // timedelta(seconds=1) - offset
                return cls.of(seconds * _SECOND + int((fraction or "0").ljust(9, "0")[:9]))
            except ValueError:
                pass
        raise CelError(f'parsing time "{text[:100]}" as "2006-01-02T15:04:05Z07:00": cannot parse it')

    @classmethod
    def of_date(cls, text: str) -> Timestamp:
        """Parse a full date of RFC 3339. Raises `CelError`."""
        return cls.parse(f"{text}T00:00:00Z")

    def at(self, zone: str = "") -> datetime:
        """Return the moment in a time zone: a name of the database, or `+hh:mm`. Raises `CelError`."""
        return (_EPOCH + timedelta(microseconds=self.ns // 1000)).astimezone(_zone(zone))

    def __str__(self) -> str:
        seconds, rest = divmod(self.ns, _SECOND)
        whole = (_EPOCH + timedelta(seconds=seconds)).replace(tzinfo=None).isoformat()
        return f"{whole}{_fraction(rest)}Z"


def _fraction(ns: int) -> str:
    return f".{ns:09d}".rstrip("0") if ns else ""


def _zone(name: str) -> tzinfo:
    if not name or name == "UTC":
        return UTC
    if match := re.fullmatch(r"([+-]?)([0-9]{2}):([0-9]{2})", name):
        minutes = int(match[2]) * 60 + int(match[3])
        if minutes < 24 * 60:
            return timezone(timedelta(minutes=-minutes if match[1] == "-" else minutes))
    elif re.fullmatch(r"[A-Za-z0-9_+-]{1,40}(?:/[A-Za-z0-9_+-]{1,40}){0,2}", name):
        import zoneinfo

        try:
            return zoneinfo.ZoneInfo(name)
        except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
            pass
    raise CelError(f"unknown time zone {name[:100]}")


@dataclass(frozen=True, slots=True, order=True)
class Duration(Opaque):
    """A length of time, in nanoseconds."""

    kind: ClassVar[str] = "duration"
    ns: int

    @classmethod
    def of(cls, ns: int) -> Duration:
        """Return the duration. Raises `CelError` for more than 64 bits."""
        if not INT_LEAST <= ns <= INT_MOST:
            raise CelError("duration overflow")
        return cls(ns)

    @classmethod
    def parse(cls, text: str) -> Duration:
        """Parse Go's format, `1h2m3.5s`. Raises `CelError`."""
        sign, rest = (-1, text[1:]) if text.startswith("-") else (1, text.removeprefix("+"))
        if rest == "0":
            return cls(0)
        total, position = 0, 0
        for match in _DURATION.finditer(rest[:200]):
            if match.start() != position:
                break
            whole, _, fraction = match[1].partition(".")
            unit = _UNITS[match[2]]
            total += int(whole or "0") * unit + int(fraction[:18] or "0") * unit // 10 ** len(fraction[:18])
            position = match.end()
        if not position or position != len(rest):
            raise CelError(f'time: invalid duration "{text[:100]}"')
        return cls.of(sign * total)

    def __str__(self) -> str:
        """In seconds, in the language's notation."""
        seconds, rest = divmod(abs(self.ns), _SECOND)
        return f"{'-' if self.ns < 0 else ''}{seconds}{_fraction(rest)}s"


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
