"""Functions on values by their shapes: the paths of a value, the difference of two, merging and removal."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import msgspec

from cumulet.common.kubernetes.objects import Object
from cumulet.kube.fields.sets import Node, children, is_member, node
from cumulet.kube.fields.shape import ANY, Shape

_MISSING: Any = object()
#: Keys of lists that upstream's schema defaults.
_KEY_DEFAULTS = {"protocol": "TCP", "name": ""}


class FieldsError(Exception):
    """A value does not have the form that its schema requires; the message names the path."""


def field_set(value: object, shape: Shape) -> Node:
    """Return the paths of an applied configuration. Raises `FieldsError`."""
    return _set(value, shape, "")[1]


def _set(value: object, shape: Shape, path: str) -> tuple[bool, Node]:
    if shape.atomic or not isinstance(value, dict | list) or (isinstance(value, list) and not _is_granular(shape)):
        return True, {}
    paths: Node = {}
    if isinstance(value, dict):
        for key, item in value.items():
            member, below = _set(item, shape.field(key), f"{path}.{key}")
            if item is None or item == {} or key not in shape.fields:
                member = True
            made = node(member, below)
            if made is not None:
                paths[f"f:{key}"] = made
        return False, paths
    elements = _elements(value, shape)
    if elements is None:
        raise FieldsError(f"{path}: element 0: associative list with keys has an element that omits key field")
    for key, item in elements.items():
        made = node(True, _set(item, shape.element or ANY, f"{path}[{key}]")[1])
        assert made is not None
        paths[key] = made
    return False, paths


_LEAF: Node = {}
#: The number of specs whose paths are cached, and the largest size of one in bytes of JSON.
_REMEMBERED = 128
_REMEMBERED_BYTES = 16_384


def made(new: Object, shape: Shape) -> Node:
    """Return the paths that the writer of a new object owns: its difference to nothing, as by `compare`."""
    paths: Node = {}
    for key, value in new.items():
        of = shape.field(key)
        embedded = key in shape.embedded
        below = _remembered(value, of, embedded) if key == "spec" else _made(value, of, embedded)
        if below is not None:
            paths[f"f:{key}"] = below
    return paths


def _remembered(value: object, shape: Shape, embedded: bool) -> Node | None:
    """Return the same as `_made`, from a cache: many objects have the spec of one template."""
    raw = msgspec.json.encode(value)
    return _made(value, shape, embedded) if len(raw) > _REMEMBERED_BYTES else _made_of(raw, shape, embedded)


@functools.lru_cache(_REMEMBERED)
def _made_of(raw: bytes, shape: Shape, embedded: bool) -> Node | None:
    return _made(msgspec.json.decode(raw), shape, embedded)


def _made(new: object, shape: Shape, embedded: bool) -> Node | None:
    """Return the paths of a new value; an `embedded` struct is always present, so an empty one has no owner."""
    if not new:
        return None if embedded else _LEAF
    if not isinstance(new, dict | list):
        return _LEAF
    if shape.atomic:
        return _LEAF
    below: Node = {}
    if isinstance(new, dict):
        fields = shape.fields
        for key, value in new.items():
            of = fields.get(key)
            if of.__class__ is not Shape:
                of = shape.field(key)
            paths = _made(value, of, embedded and key in shape.embedded)
            if paths is not None:
                below["f:" + key] = paths
        return node(not embedded, below)
    elements = _elements(new, shape) if _is_granular(shape) else None
    if elements is None:
        return _LEAF
    for key, value in elements.items():
        paths = _made(value, shape.element or ANY, False)
        if paths is not None:
            below[key] = paths
    if len(elements) != len(new):
        # Duplicate elements are owned as a whole.
        below |= dict.fromkeys(_duplicates(new, shape), _LEAF)
    return node(not embedded, below)


def _duplicates(items: list[object], shape: Shape) -> list[str]:
    keys = [key for item in items for key in _elements([item], shape) or ()]
    return [key for key in keys if keys.count(key) > 1]


def compare(old: object, new: object, shape: Shape) -> tuple[Node, Node]:
    """Return the added or changed paths, and the removed paths, between two objects."""
    changed, removed = _compare(old, new, shape)
    return changed or {}, removed or {}


def _compare(old: Any, new: Any, shape: Shape) -> tuple[Node | None, Node | None]:
    if old is new or old == new:
        return None, None
    if shape.atomic or not _descends(old, new, shape):
        return _leaf(old, new)
    if isinstance(old, list) or isinstance(new, list):
        before = {} if old is _MISSING else _elements(old, shape)
        after = {} if new is _MISSING else _elements(new, shape)
        if before is None or after is None:
            return _leaf(old, new)
        pairs = [
            (key, before.get(key, _MISSING), after.get(key, _MISSING), shape.element or ANY)
            for key in {**before, **after}
        ]
    else:
        before = {} if old is _MISSING else old
        after = {} if new is _MISSING else new
        # An embedded struct of an absent struct is absent too.
        embedded = frozenset() if old is _MISSING or new is _MISSING else shape.embedded
        pairs = [
            (f"f:{key}", _given(before, key, embedded), _given(after, key, embedded), shape.field(key))
            for key in {**before, **after}
        ]
    changed: Node = {}
    removed: Node = {}
    for key, one, other, below in pairs:
        add, drop = _compare(_like(one, other), _like(other, one), below)
        if add is not None:
            changed[key] = add
        if drop is not None:
            removed[key] = drop
    return node(old is _MISSING, changed), node(new is _MISSING, removed)


_EMBEDDED: Any = object()


def _given(of: Object, key: str, embedded: frozenset[str]) -> Any:
    return of.get(key, _EMBEDDED if key in embedded else _MISSING)


def _like(value: object, other: object) -> object:
    """Return a value, or for an absent embedded struct an empty one."""
    if value is _EMBEDDED:
        return type(other)() if other is not None and other is not _EMBEDDED else None
    return value


def _descends(old: object, new: object, shape: Shape) -> bool:
    for kind in (dict, list):
        if all(value is _MISSING or isinstance(value, kind) for value in (old, new)):
            empty = all(value is _MISSING or not value for value in (old, new))
            return not empty and (kind is dict or _is_granular(shape))
    return False


def _leaf(old: object, new: object) -> tuple[Node | None, Node | None]:
    if new is _MISSING:
        return None, {}
    return ({}, None) if old is _MISSING or old != new else (None, None)


def _is_granular(shape: Shape) -> bool:
    return bool(shape.keys) or shape.is_set


def _elements(items: list[Any], shape: Shape) -> dict[str, Any] | None:
    """Return the elements of a list by their path elements, or `None` where an element lacks its keys."""
    by_path: dict[str, Any] = {}
    for item in items:
        if shape.is_set:
            by_path[f"v:{msgspec.json.encode(item).decode()}"] = item
            continue
        if not isinstance(item, dict):
            return None
        keys = {name: item.get(name, _KEY_DEFAULTS.get(name)) for name in shape.keys}
        keys = {name: value for name, value in keys.items() if value is not None}
        if not keys:
            return None
        by_path[f"k:{msgspec.json.encode(keys).decode()}"] = item
    return by_path


def merge(live: Any, config: Any, shape: Shape) -> Any:
    """Return the live value merged with the configuration."""
    if shape.atomic or type(live) is not type(config):
        return config
    if isinstance(live, dict):
        merged = dict(live)
        for key, value in config.items():
            merged[key] = merge(live[key], value, shape.field(key)) if key in live else value
        return merged
    if not isinstance(live, list) or not _is_granular(shape):
        return config
    mine, theirs = _elements(live, shape), _elements(config, shape)
    if mine is None or theirs is None:
        return config
    return _interleave(mine, theirs, shape.element or ANY)


def _interleave(live: Mapping[str, object], config: Mapping[str, object], shape: Shape) -> list[object]:
    """Return the elements in the configuration's order; the others keep their place between them."""
    ours, theirs = list(live), list(config)
    shared = [key for key in theirs if key in live]
    result: list[object] = []
    mine = other = met = 0
    while mine < len(ours) or other < len(theirs):
        if mine < len(ours):
            key = ours[mine]
            if key not in config:
                result.append(live[key])
                mine += 1
                continue
            if other >= len(theirs) or key not in shared[met : met + 1]:
                mine += 1  # the configuration has the place of this element
                continue
        key = theirs[other]
        other += 1
        if key in live:
            met += 1
            result.append(merge(live[key], config[key], shape))
        else:
            result.append(config[key])
    return result


def abandoned(last: Node, now: Node, shape: Shape) -> Node:
    """Return the paths of the applier's last configuration that have no owner now."""
    paths: Node = {}
    for key, mine in children(last):
        name = key[2:] if key.startswith("f:") else None
        # The owner of a field in a struct also keeps the struct.
        declared = name is not None and name in shape.fields
        theirs = now.get(key)
        if (is_member(mine) or declared) and (theirs is None or not (is_member(theirs) or declared)):
            paths[key] = {}
        elif theirs is not None:
            below = abandoned(mine, theirs, shape.field(name) if name is not None else shape.element or ANY)
            if below:
                paths[key] = below
    return paths


def without_paths(value: Any, gone: Node, shape: Shape) -> Any:
    """Return a value without some paths; a map or list that becomes empty is removed too, as `None`."""
    if isinstance(value, dict):
        left = dict(value)
        for key, below in gone.items():
            name = key[2:]
            if name not in left:
                continue
            kept = None if is_member(below) else without_paths(left[name], below, shape.field(name))
            if kept is None:
                del left[name]
            else:
                left[name] = kept
        return left or None
    elements = _elements(value, shape) if isinstance(value, list) else None
    if elements is None:
        return value
    items = []
    for key, item in elements.items():
        hit = gone.get(key)
        kept = item if hit is None else None if is_member(hit) else without_paths(item, hit, shape.element or ANY)
        if kept is not None:
            items.append(kept)
    return items or None
