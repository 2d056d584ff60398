"""Sets of field paths in the form of `FieldsV1`, and their algebra.

A node maps path elements (`f:name`, `k:{"name":"c"}`, `v:"x"`) to nodes. An empty node is a path of the set. A node
with children is one if it also has the key `.`. Operations share nodes and change none.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeAlias

Node: TypeAlias = "dict[str, Node]"


def node(member: bool, children: Node) -> Node | None:
    """Return a node with these children, or `None` where it would hold no path."""
    if not children:
        return {} if member else None
    return {".": {}, **children} if member else children


def is_member(of: Node) -> bool:
    """Return whether the path to a node is in the set."""
    return not of or "." in of


def children(of: Node) -> Iterator[tuple[str, Node]]:
    """Yield the nodes below a node."""
    return ((key, child) for key, child in of.items() if key != ".")


def union(one: Node, other: Node) -> Node:
    """Return the paths of either set."""
    result = dict(one)
    for key, theirs in other.items():
        mine = result.get(key)
        if mine is None:
            result[key] = theirs
        elif key != ".":
            member = is_member(mine) or is_member(theirs)
            below = union(_below(mine), _below(theirs))
            both = node(member, below)
            assert both is not None, "every node of a set holds a path"
            result[key] = both
    return result


def difference(one: Node, other: Node) -> Node:
    """Return the paths of the first set that are not in the second."""
    result: Node = {}
    for key, mine in children(one):
        theirs = other.get(key)
        if theirs is None:
            result[key] = mine
            continue
        left = node(is_member(mine) and not is_member(theirs), difference(_below(mine), _below(theirs)))
        if left is not None:
            result[key] = left
    return result


def intersection(one: Node, other: Node) -> Node:
    """Return the paths of both sets."""
    result: Node = {}
    for key, mine in children(one):
        theirs = other.get(key)
        if theirs is None:
            continue
        both = node(is_member(mine) and is_member(theirs), intersection(_below(mine), _below(theirs)))
        if both is not None:
            result[key] = both
    return result


def paths(of: Node, prefix: str = "") -> Iterator[str]:
    """Yield each path as conflicts show it: `.spec.containers[name="c"].image`."""
    for key, child in children(of):
        path = prefix + _shown(key)
        if is_member(child):
            yield path
        yield from paths(_below(child), path)


def is_set(value: object, depth: int = 0) -> bool:
    """Return whether a client's JSON is a valid set."""
    return (
        depth < 100
        and isinstance(value, dict)
        and all((key == "." or key[1:2] == ":") and is_set(child, depth + 1) for key, child in value.items())
    )


def _below(of: Node) -> Node:
    return {key: child for key, child in of.items() if key != "."} if "." in of else of


def _shown(key: str) -> str:
    kind, _, text = key.partition(":")
    if kind == "f":
        return f".{text}"
    if kind == "k":
        pairs = text.strip("{}").replace('":', "=").replace('"', "", 1).replace(',"', ",")
        return f"[{pairs}]"
    return f"[={text}]"
