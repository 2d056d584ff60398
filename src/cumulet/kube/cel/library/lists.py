"""The libraries of lists and sets (cel-go's `ext/lists.go`, `ext/sets.go`; `cel/library/lists.go`)."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Sequence

from cumulet.kube.cel.errors import CelError
from cumulet.kube.cel.functions import Library
from cumulet.kube.cel.sizes import LIST, MOST, TRAVERSAL, Argument, Estimate, Size, clip, scaled
from cumulet.kube.cel.times import Duration
from cumulet.kube.cel.values import (
    INT_LEAST,
    INT_MOST,
    UINT_MOST,
    Key,
    Uint,
    Value,
    compare,
    equal,
    traversal,
    weight,
)

LIBRARY = Library()
_add = LIBRARY.add
_COMPARABLE = ("int", "uint", "double", "bool", "duration", "timestamp", "string", "bytes")


def _each(target: Argument | None, args: Sequence[Argument]) -> Estimate:
    """Estimate one for each element, and more for texts."""
    assert target is not None
    cost = 1
    if target.type.params and target.type.params[0].kind in ("string", "bytes"):
        cost += scaled(target.item.most, TRAVERSAL)
    return clip(target.size.most * cost), None


def _each_cost(items: list[Value], item: Value = None) -> int:
    return traversal(items)


def _whole(argument: Argument, otherwise: int) -> int:
    return argument.constant if type(argument.constant) is int and argument.constant >= 0 else otherwise


def _made(size: int, factor: float = 1) -> Estimate:
    return clip(scaled(size, factor) + 1 + LIST), Size(0, clip(size))


def _made_cost(size: int, factor: float = 1) -> int:
    return int(size * factor) + 1 + LIST


def _sliced(target: Argument | None, args: Sequence[Argument]) -> Estimate:
    assert target is not None
    return _made(max(_whole(args[1], target.size.most) - _whole(args[0], 0), 0))


def _slice(items: list[Value], start: int, end: int) -> list[Value]:
    if start < 0 or end < 0:
        raise CelError(f"cannot slice({start}, {end}), negative indexes not supported")
    if start > end:
        raise CelError(f"cannot slice({start}, {end}), start index must be less than or equal to end index")
    if end > len(items):
        raise CelError(f"cannot slice({start}, {end}), list is length {len(items)}")
    return items[start:end]


def _flat(items: list[Value], depth: int = 1) -> list[Value]:
    if depth < 0:
        raise CelError("level must be non-negative")
    found = list(items)
    for _ in range(depth):
        if not any(isinstance(item, list) for item in found):
            break
        found = [part for item in found for part in (item if isinstance(item, list) else [item])]
    return found


def _flattened(target: Argument | None, args: Sequence[Argument]) -> Estimate:
    assert target is not None
    return _made(target.size.most, _whole(args[0], MOST) if args else 1)


def _flat_cost(items: list[Value], depth: int = 1) -> int:
    """Upstream counts the outer list. The inner elements count here too, as they are copied."""
    return _made_cost(len(items), min(max(depth, 0), 2**32)) + weight(items) // 10


def _sort(items: list[Value]) -> list[Value]:
    return _sort_by(items, items)


def _sort_by(items: list[Value], keys: list[Value]) -> list[Value]:
    if len(items) != len(keys):
        raise CelError("@sortByAssociatedKeys() expected a list of the same size as the associated keys list")
    if not items:
        return items
    kind = type(keys[0])
    if any(type(key) is not kind for key in keys):
        raise CelError("list elements must have the same type")

    def compared(one: int, other: int) -> int:
        return compare(keys[one], keys[other])

    order = sorted(range(len(items)), key=functools.cmp_to_key(compared))
    return [items[index] for index in order]


def _pairs(argument: Argument) -> Estimate:
    factor = 2.0
    if argument.type.params and argument.type.params[0].kind in ("string", "bytes"):
        factor += TRAVERSAL
    size = argument.size
    cost = clip(scaled(clip(size.most * size.most), factor) + 1 + LIST)
    return cost, size


def _pairs_cost(items: list[Value]) -> int:
    factor = 2.0
    if items and isinstance(items[0], str | bytes):
        factor += TRAVERSAL
    return _made_cost(len(items) ** 2, factor) + _deep(items)


def _deep(items: list[Value]) -> int:
    """Return the extra cost of comparing elements that are lists or maps."""
    return len(items) * max((weight(item) for item in items if isinstance(item, list | dict)), default=0) // 10


def _distinct(items: list[Value]) -> list[Value]:
    found: list[Value] = []
    for item in items:
        if not any(equal(item, other) for other in found):
            found.append(item)
    return found


def _of_sets(factor: int) -> Callable[[Argument | None, Sequence[Argument]], Estimate]:
    return lambda target, args: (clip(clip(args[0].size.most * args[1].size.most) * factor + 1), None)


def _sets_cost(factor: int) -> Callable[[list[Value], list[Value]], int]:
    def cost(one: list[Value], other: list[Value]) -> int:
        return 1 + len(one) * len(other) * factor + _deep(one) * len(other)

    return cost


def _holds(outer: list[Value], inner: list[Value]) -> bool:
    return all(any(equal(item, other) for other in outer) for item in inner)


def _last_index(items: list[Value], item: Value) -> int:
    return next((index for index in range(len(items) - 1, -1, -1) if equal(items[index], item)), -1)


def _first_index(items: list[Value], item: Value) -> int:
    return next((index for index, other in enumerate(items) if equal(other, item)), -1)


def _best(name: str, wanted: int) -> Callable[[list[Value]], Value]:
    def find(items: list[Value]) -> Value:
        if not items:
            raise CelError(f"{name} called on empty list")
        found = items[0]
        for item in items[1:]:
            if compare(found, item) == wanted:
                found = item
        return found

    return find


def _is_sorted(items: list[Value]) -> bool:
    return all(compare(one, other) <= 0 for one, other in itertools.pairwise(items))


def _sum(items: list[int | float]) -> int | float:
    found = sum(items)
    if not isinstance(found, float) and not INT_LEAST <= found <= INT_MOST:
        raise CelError("integer overflow")
    return found


def _sum_unsigned(items: list[int]) -> Uint:
    found = sum(items)
    if found > UINT_MOST:
        raise CelError("unsigned integer overflow")
    return Uint(found)


def _typed_sum(items: list[Value]) -> Value:
    """Sum by the type of the elements, as lists of any type look the same."""
    kinds = {type(item) for item in items}
    numbers = [item for item in items if isinstance(item, int | float)]
    if kinds <= {int} or kinds == {float}:
        return _sum(numbers)
    if kinds == {Uint}:
        return _sum_unsigned([item for item in items if isinstance(item, Uint)])
    if kinds == {Duration}:
        return Duration.of(sum(item.ns for item in items if isinstance(item, Duration)))
    raise CelError("no such overload")


for _kind in _COMPARABLE:
    _add(f"(list<{_kind}>).isSorted() bool", _is_sorted, _each_cost, _each)
    _add(f"(list<{_kind}>).min() {_kind}", _best("min", 1), _each_cost, _each)
    _add(f"(list<{_kind}>).max() {_kind}", _best("max", -1), _each_cost, _each)
    _add(
        f"(list<{_kind}>).sort() list<{_kind}>",
        _sort,
        _pairs_cost,
        lambda target, args: _pairs(target) if target is not None else None,
    )
    _add(
        f"(list<A>).@sortByAssociatedKeys(list<{_kind}>) list<A>",
        _sort_by,
        lambda items, keys: _pairs_cost(keys),
        lambda target, args: _pairs(args[0]),
    )
_add("(list<int>).sum() int", _typed_sum, _each_cost, _each)
_add("(list<uint>).sum() uint", _typed_sum, _each_cost, _each)
_add("(list<double>).sum() double", _typed_sum, _each_cost, _each)
_add("(list<duration>).sum() duration", _typed_sum, _each_cost, _each)


_add("(list<A>).indexOf(A) int", _first_index, _each_cost, _each)
_add("(list<A>).lastIndexOf(A) int", _last_index, _each_cost, _each)
_add("(list<A>).slice(int, int) list<A>", _slice, lambda items, start, end: _made_cost(max(end - start, 0)), _sliced)
_add("(list<list<A>>).flatten() list<A>", _flat, _flat_cost, _flattened)
_add("(list<dyn>).flatten(int) list<dyn>", _flat, _flat_cost, _flattened)
_add(
    "lists.range(int) list<int>",
    lambda count: list(range(count)),
    lambda count: _made_cost(max(count, 0)),
    lambda target, args: _made(_whole(args[0], MOST)),
)
_add(
    "(list<A>).reverse() list<A>",
    lambda items: items[::-1],
    lambda items: _made_cost(len(items)),
    lambda target, args: _made(target.size.most) if target is not None else None,
)
_add(
    "(list<A>).distinct() list<A>",
    _distinct,
    _pairs_cost,
    lambda target, args: (clip(scaled(clip(target.size.most**2), 2) + 1 + LIST), target.size) if target else None,
)
_add("sets.contains(list<A>, list<A>) bool", _holds, _sets_cost(1), _of_sets(1))
_add(
    "sets.equivalent(list<A>, list<A>) bool",
    lambda one, other: _holds(one, other) and _holds(other, one),
    _sets_cost(2),
    _of_sets(2),
)
_add(
    "sets.intersects(list<A>, list<A>) bool",
    lambda one, other: any(any(equal(item, also) for also in other) for item in one),
    _sets_cost(1),
    _of_sets(1),
)


# Helpers that two-variable macros use to build maps.


def _insert(entries: dict[Key, Value], key: Key, value: Value) -> dict[Key, Value]:
    if key in entries:
        raise CelError(f"insert failed: key '{key}' already exists")
    return {**entries, key: value}


def _merge(entries: dict[Key, Value], others: dict[Key, Value]) -> dict[Key, Value]:
    found = entries
    for key, value in others.items():
        found = _insert(found, key, value)
    return found


_add("cel.@mapInsert(map<A, B>, A, B) map<A, B>", _insert)
_add("cel.@mapInsert(map<A, B>, map<A, B>) map<A, B>", _merge)
