"""The language's own functions and operators (cel-go's `common/stdlib`, cel-spec `doc/langdef.md`)."""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Sequence
from datetime import datetime

from cumulet.common.ascii import fold
from cumulet.kube.apimachinery import regexp
from cumulet.kube.cel.errors import CelError
from cumulet.kube.cel.functions import Library
from cumulet.kube.cel.library.numbers import shortest
from cumulet.kube.cel.sizes import REGEX, TRAVERSAL, Argument, Estimate, Size, clip, scaled, scan_cost
from cumulet.kube.cel.times import Duration, Timestamp
from cumulet.kube.cel.values import (
    INT_LEAST,
    INT_MOST,
    UINT_MOST,
    Key,
    Uint,
    Unordered,
    Value,
    compare,
    equal,
    no_overload,
    size_of,
    type_of,
    weight,
)

LIBRARY = Library()
_add = LIBRARY.add
_WHOLE = re.compile(r"[+-]?[0-9]{1,40}")
_DECIMAL = re.compile(
    r"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?|[+-]?(?:inf(?:inity)?|nan)", re.IGNORECASE | re.ASCII
)
_TRUE, _FALSE = ("1", "t", "T", "true", "TRUE", "True"), ("0", "f", "F", "false", "FALSE", "False")


# Costs.


def _shorter(target: Argument | None, args: Sequence[Argument]) -> Estimate:
    """Estimate a comparison by the shorter of two values."""
    return scaled(min(args[0].size.most, args[1].size.most), TRAVERSAL), None


def _shorter_cost(one: Value, other: Value) -> int:
    return math.ceil(min(size_of(one), size_of(other)) * TRAVERSAL)


def _equal_cost(one: Value, other: Value) -> int:
    """Upstream counts the size of the shorter value. The contents of lists and maps count here too, as they are compared."""
    found = _shorter_cost(one, other)
    if isinstance(one, list | dict) and isinstance(other, list | dict) and len(one) == len(other):
        return max(found, weight(one) // 10)
    return found


def _joined_size(target: Argument | None, args: Sequence[Argument]) -> Estimate:
    size = args[0].size.plus(args[1].size)
    return scaled(size.most, TRAVERSAL), size


def _joined_lists(target: Argument | None, args: Sequence[Argument]) -> Estimate:
    return 1, args[0].size.plus(args[1].size)


def _joined_cost(one: str | bytes, other: str | bytes) -> int:
    return math.ceil((len(one) + len(other)) * TRAVERSAL)


def _joined_lists_cost(one: list[Value], other: list[Value]) -> int:
    """Upstream keeps a view of both lists at cost one. Here they are copied."""
    return 1 + (len(one) + len(other)) // 10


def _in_list(target: Argument | None, args: Sequence[Argument]) -> Estimate:
    return args[1].size.most, None


def _in_list_cost(one: Value, items: list[Value]) -> int:
    return len(items) if not isinstance(one, list | dict) else len(items) * (1 + weight(one) // 10)


def _matching(target: Argument | None, args: Sequence[Argument]) -> Estimate:
    text, pattern = [target, *args] if target is not None else args
    return clip(scaled(text.size.most + 1, TRAVERSAL) * scaled(pattern.size.most, REGEX)), None


def matching_cost(text: str, pattern: str, limit: int = -1) -> int:
    """Return the cost of matching a text against a regular expression."""
    return math.ceil((1 + len(text)) * TRAVERSAL) * math.ceil(len(pattern) * REGEX)


def _containing(target: Argument | None, args: Sequence[Argument]) -> Estimate:
    assert target is not None
    return clip(scaled(target.size.most, TRAVERSAL) * scaled(args[0].size.most, TRAVERSAL)), None


def _containing_cost(text: str, part: str) -> int:
    return math.ceil(len(text) * TRAVERSAL) * math.ceil(len(part) * TRAVERSAL)


def _prefix(target: Argument | None, args: Sequence[Argument]) -> Estimate:
    return scaled(args[0].size.most, TRAVERSAL), None


def _encoded(target: Argument | None, args: Sequence[Argument]) -> Estimate:
    size = args[0].size
    return scaled(size.most, TRAVERSAL), Size(size.least, clip(size.most * 4))


def _decoded(target: Argument | None, args: Sequence[Argument]) -> Estimate:
    size = args[0].size
    return scaled(size.most, TRAVERSAL), Size(size.least // 4, size.most)


# Operators.


def _joined(one: list[Value], other: list[Value]) -> list[Value]:
    return one.joined(other) if isinstance(one, Unordered) else one + other


def _int(number: int) -> int:
    if not INT_LEAST <= number <= INT_MOST:
        raise CelError("integer overflow")
    return int(number)


def _uint(number: int) -> Uint:
    if not 0 <= number <= UINT_MOST:
        raise CelError("unsigned integer overflow")
    return Uint(number)


def _quotient(one: int, other: int) -> int:
    """Divide, rounding towards zero."""
    if not other:
        raise CelError("division by zero")
    found = abs(one) // abs(other)
    return found if (one < 0) == (other < 0) else -found


def _remainder(one: int, other: int) -> int:
    if not other:
        raise CelError("modulus by zero")
    return int(math.copysign(1, one)) * (abs(one) % abs(other))


def _divided(one: float, other: float) -> float:
    if other:
        return one / other
    if not one or math.isnan(one):
        return math.nan
    return math.copysign(math.inf, one) * math.copysign(1, other)


def _times(one: float, other: float) -> float:
    return one * other  # infinite where it is too large, as in Go


def _of_both(make: Callable[[int], int], act: Callable[[int, int], int]) -> Callable[[int, int], int]:
    return lambda one, other: make(act(one, other))


for _name, _act in (
    ("+", operator.add),
    ("-", operator.sub),
    ("*", operator.mul),
    ("/", _quotient),
    ("%", _remainder),
):
    _add(f"_{_name}_(int, int) int", _of_both(_int, _act))
    _add(f"_{_name}_(uint, uint) uint", _of_both(_uint, _act))
_add("_+_(double, double) double", operator.add)
_add("_-_(double, double) double", operator.sub)
_add("_*_(double, double) double", _times)
_add("_/_(double, double) double", _divided)
_add("_+_(string, string) string", operator.add, _joined_cost, _joined_size)
_add("_+_(bytes, bytes) bytes", operator.add, _joined_cost, _joined_size)
_add("_+_(list<A>, list<A>) list<A>", _joined, _joined_lists_cost, _joined_lists, name="add_list")
_add("_+_(duration, duration) duration", lambda one, other: Duration.of(one.ns + other.ns))
_add("_+_(duration, timestamp) timestamp", lambda one, other: Timestamp.of(one.ns + other.ns))
_add("_+_(timestamp, duration) timestamp", lambda one, other: Timestamp.of(one.ns + other.ns))
_add("_-_(duration, duration) duration", lambda one, other: Duration.of(one.ns - other.ns))
_add("_-_(timestamp, duration) timestamp", lambda one, other: Timestamp.of(one.ns - other.ns))
_add("_-_(timestamp, timestamp) duration", lambda one, other: Duration.of(one.ns - other.ns))
_add("-_(int) int", lambda one: _int(-one))
_add("-_(double) double", operator.neg)
_add("!_(bool) bool", operator.not_)
_add("@not_strictly_false(bool) bool", lambda one: one)
_add("_&&_(bool, bool) bool", lambda one, other: one and other, name="logical_and")
_add("_||_(bool, bool) bool", lambda one, other: one or other, name="logical_or")
_add("_?_:_(bool, A, A) A", lambda test, one, other: one if test else other, name="conditional")
_add("_==_(A, A) bool", equal, _equal_cost, _shorter, name="equals")
_add("_!=_(A, A) bool", lambda one, other: not equal(one, other), _equal_cost, _shorter, name="not_equals")

_NUMBERS = ("int", "uint", "double")
_ORDERED = [(kind, kind) for kind in ("bool", *_NUMBERS, "string", "bytes", "timestamp", "duration")] + [
    (one, other) for one in _NUMBERS for other in _NUMBERS if one != other
]
_ORDERS: dict[str, Callable[[int], bool]] = {
    "<": lambda order: order < 0,
    "<=": lambda order: order <= 0,
    ">": lambda order: order > 0,
    ">=": lambda order: order >= 0,
}


def _ordering(holds: Callable[[int], bool]) -> Callable[[Value, Value], bool]:
    return lambda one, other: holds(compare(one, other))


for _name, _holds in _ORDERS.items():
    for _one, _other in _ORDERED:
        _is_text = _one in ("string", "bytes")
        _add(
            f"_{_name}_({_one}, {_other}) bool",
            _ordering(_holds),
            _shorter_cost if _is_text else None,
            _shorter if _is_text else None,
        )


def _item(items: list[Value], index: float) -> Value:
    if index != int(index):
        raise CelError(f"unsupported index value: {index}")
    if not 0 <= index < len(items):
        raise CelError(f"index out of bounds: {int(index)}")
    return items[int(index)]


def _key(key: Value) -> Key:
    """Return a key in the form that maps use. Raises `CelError` for a value that cannot be a key."""
    if isinstance(key, float):
        if key.is_integer():
            return int(key)
        raise CelError(f"no such key: {shortest(key)}")
    if not isinstance(key, str | int):
        raise no_overload()
    return key


def _entry(entries: dict[Key, Value], key: Value) -> Value:
    found = _key(key)
    if found not in entries:
        raise CelError(f"no such key: {fold(str(found)) if isinstance(found, bool) else found}")
    return entries[found]


def _is_key(key: Value, entries: dict[Key, Value]) -> bool:
    try:
        return _key(key) in entries
    except CelError:
        return False


_add("_[_](list<A>, int) A", _item, name="index_list")
_add("_[_](map<A, B>, A) B", _entry, name="index_map")
_add("@in(A, list<A>) bool", lambda one, items: any(equal(one, item) for item in items), _in_list_cost, _in_list)
_add("@in(A, map<A, B>) bool", _is_key)
for _kind in ("string", "bytes", "list<A>", "map<A, B>"):
    _add(f"size({_kind}) int", len)
    _add(f"({_kind}).size() int", len)


# Conversions.


def _to_bool(text: str) -> bool:
    if text in _TRUE:
        return True
    if text in _FALSE:
        return False
    raise CelError(f"type conversion error from 'string' to 'bool': {text[:100]!r}")


def _from_double(number: float, make: Callable[[int], int], what: str) -> int:
    if not math.isfinite(number):
        raise CelError(f"{what} overflow")
    return make(int(number))


def _from_text(text: str, make: Callable[[int], int]) -> int:
    if not _WHOLE.fullmatch(text):
        raise CelError(f'strconv.ParseInt: parsing "{text[:100]}": invalid syntax')
    return make(int(text))


def _to_double(text: str) -> float:
    if not _DECIMAL.fullmatch(text):
        raise CelError(f'strconv.ParseFloat: parsing "{text[:100]}": invalid syntax')
    return float(text)


def _decoded_text(value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError:
        raise CelError("invalid UTF-8 in bytes, cannot convert to string") from None


def _same(value: Value) -> Value:
    return value


for _kind in ("bool", "bytes", "double", "duration", "int", "string", "timestamp", "uint"):
    _add(f"{_kind}({_kind}) {_kind}", _same)
_add("bool(string) bool", _to_bool)
_add("bytes(string) bytes", str.encode, scan_cost(), _encoded)
_add("double(int) double", float)
_add("double(uint) double", float)
_add("double(string) double", _to_double)
_add("duration(string) duration", Duration.parse)
_add("int(double) int", lambda value: _from_double(value, _int, "integer"))
_add("int(duration) int", lambda value: value.ns)
_add("int(string) int", lambda value: _from_text(value, _int))
_add("int(timestamp) int", lambda value: value.ns // 10**9)
_add("int(uint) int", _int)
_add("uint(double) uint", lambda value: _from_double(value, _uint, "unsigned integer"))
_add("uint(int) uint", _uint)
_add("uint(string) uint", lambda value: _from_text(value, _uint))
_add("string(bool) string", lambda value: "true" if value else "false")
_add("string(bytes) string", _decoded_text, scan_cost(), _decoded)
_add("string(double) string", shortest)
_add("string(duration) string", str)
_add("string(int) string", str)
_add("string(timestamp) string", str)
_add("string(uint) string", lambda value: str(int(value)))
_add("timestamp(int) timestamp", lambda value: Timestamp.of(value * 10**9))
_add("timestamp(string) timestamp", Timestamp.parse)
_add("type(A) type<A>", type_of)
_add("dyn(A) dyn", _same)


# Texts.

_add("(string).contains(string) bool", lambda one, other: other in one, _containing_cost, _containing)
_add("(string).startsWith(string) bool", str.startswith, scan_cost(), _prefix)
_add("(string).endsWith(string) bool", str.endswith, scan_cost(), _prefix)


def _matches(text: str, pattern: str) -> bool:
    try:
        return regexp.is_found(pattern, text)
    except regexp.PatternError as error:
        raise CelError(str(error)) from None


_add("(string).matches(string) bool", _matches, matching_cost, _matching)
# Upstream declares this form only; it costs the same here.
_add("matches(string, string) bool", _matches, matching_cost, 1)


# Times.

_PARTS: dict[str, Callable[[datetime], int]] = {
    "getFullYear": lambda at: int(at.year),
    "getMonth": lambda at: int(at.month) - 1,
    "getDayOfYear": lambda at: int(at.timetuple().tm_yday) - 1,
    "getDayOfMonth": lambda at: int(at.day) - 1,
    "getDate": lambda at: int(at.day),
    "getDayOfWeek": lambda at: int(at.isoweekday()) % 7,
    "getHours": lambda at: int(at.hour),
    "getMinutes": lambda at: int(at.minute),
    "getSeconds": lambda at: int(at.second),
    "getMilliseconds": lambda at: int(at.microsecond) // 1000,
}
_LENGTHS = {"getHours": 3600 * 10**9, "getMinutes": 60 * 10**9, "getSeconds": 10**9, "getMilliseconds": 10**6}


def _part(
    find: Callable[[datetime], int],
) -> tuple[Callable[[Timestamp], int], Callable[[Timestamp, str], int]]:
    return lambda value: find(value.at()), lambda value, zone: find(value.at(zone))


def _length(unit: int) -> Callable[[Duration], int]:
    return lambda value: _quotient(value.ns, unit)


for _name, _find in _PARTS.items():
    _plain, _zoned = _part(_find)
    _add(f"(timestamp).{_name}() int", _plain)
    _add(f"(timestamp).{_name}(string) int", _zoned)
for _name, _unit in _LENGTHS.items():
    _add(f"(duration).{_name}() int", _length(_unit))
