"""The maximum cost of an expression, before values are known (cel-go's `checker/cost.go`).

The size of a variable's value is bounded by its type, which has the bounds of the schema.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from cumulet.kube.cel.checker import Checked, constant
from cumulet.kube.cel.sizes import LIST, MAP, STRUCT, UNKNOWN, Argument, Size, clip
from cumulet.kube.cel.syntax import Bind, Call, Fold, Ident, ListOf, Literal, MapOf, Node, Select
from cumulet.kube.cel.types import Type, is_scalar


class _Local(NamedTuple):
    """The known facts about a variable of a macro."""

    origin: Type | None
    size: Size | None
    entries: tuple[Size, Size] | None


def estimate(checked: Checked, variables: Mapping[str, Type]) -> int:
    """Return the maximum cost of an evaluation."""
    return _Coster(checked, variables).cost(checked.root)


class _Coster:
    def __init__(self, checked: Checked, variables: Mapping[str, Type]) -> None:
        self._checked = checked
        self._variables = variables
        self._scopes: list[dict[str, _Local]] = []
        #: The declared type of a node's value, where it comes from a variable.
        self._origins: dict[Node, Type] = {}
        self._sizes: dict[Node, Size] = {}
        #: The sizes of keys (or indices) and values, for lists and maps that an expression makes.
        self._entries: dict[Node, tuple[Size, Size]] = {}

    def cost(self, node: Node) -> int:
        """Return the maximum cost of a node."""
        match node:
            case Literal():
                return 0
            case Ident():
                return self._ident(node)
            case Select():
                return self._select(node)
            case Call():
                return self._call(node)
            case ListOf():
                total = LIST + sum(self.cost(item) for item in node.items)
                self._entries[node] = Size(1, 1), self._union(node.items)
                return clip(total)
            case MapOf():
                total = STRUCT if node.type else MAP
                for entry in node.entries:
                    total += (0 if node.type else self.cost(entry.key)) + self.cost(entry.value)
                if not node.type:
                    keys, values = ([getattr(entry, part) for entry in node.entries] for part in ("key", "value"))
                    self._entries[node] = self._union(keys), self._union(values)
                return clip(total)
            case Fold():
                return self._fold(node)
            case Bind():
                return self._bind(node)
        raise AssertionError(node)

    def _union(self, nodes: list[Node]) -> Size:
        found: Size | None = None
        for node in nodes:
            size = self._size(node)
            found = size if found is None else found.union(size)
        return found or Size(0, 0)

    def _local(self, name: str) -> _Local | None:
        return next((scope[name] for scope in reversed(self._scopes) if name in scope), None)

    def _ident(self, node: Ident) -> int:
        local = self._local(node.name)
        origin = local.origin if local is not None else self._variables.get(node.name)
        if origin is not None:
            self._origins[node] = origin
        elif local is None:
            self._sizes[node] = Size(0, 0)  # the name of a type
        return 1

    def _select(self, node: Select) -> int:
        if (name := self._checked.names.get(node)) is not None:
            if (origin := self._variables.get(name)) is not None:
                self._origins[node] = origin
            else:
                self._sizes[node] = Size(0, 0)  # the name of a type
            return 1
        total = self.cost(node.operand)
        if node.test:
            return total
        kind = self._checked.types[node.operand].kind
        total += 1 if kind in ("map", "object", "param") or node.optional else 0
        if (below := self._field(self._origins.get(node.operand), node.field)) is not None:
            self._origins[node] = below
        return clip(total)

    @staticmethod
    def _field(origin: Type | None, name: str) -> Type | None:
        return (origin.fields or {}).get(name) if origin is not None else None

    @staticmethod
    def _item(origin: Type | None) -> Type | None:
        """Return the type of the items of a list, or of the values of a map."""
        return origin.params[-1] if origin is not None and origin.kind in ("list", "map") else None

    @staticmethod
    def _key(origin: Type | None) -> Type | None:
        return origin.params[0] if origin is not None and origin.kind == "map" else None

    def _known_size(self, node: Node) -> Size | None:
        if node in self._sizes:
            return self._sizes[node]
        match node:
            case Literal():
                return Size(*(2 * [len(node.value) if isinstance(node.value, str | bytes) else 1]))
            case ListOf():
                return Size(len(node.items), len(node.items))
            case MapOf():
                return Size(len(node.entries), len(node.entries))
        if (origin := self._origins.get(node)) is not None:
            return Size(0, origin.most)
        if is_scalar(self._checked.types[node]):
            return Size(1, 1)
        if isinstance(node, Ident) and (local := self._local(node.name)) is not None:
            return local.size
        return None

    def _size(self, node: Node) -> Size:
        return self._known_size(node) or UNKNOWN

    def _entry_sizes(self, node: Node) -> tuple[Size, Size] | None:
        if node in self._entries:
            return self._entries[node]
        if isinstance(node, Ident) and (local := self._local(node.name)) is not None:
            return local.entries
        return None

    def _argument(self, node: Node) -> Argument:
        item = self._item(self._origins.get(node))
        size = Size(0, item.most) if item is not None else UNKNOWN
        return Argument(self._checked.types[node], self._size(node), size, constant(node))

    def _call(self, node: Call) -> int:
        if node.function == "dyn":
            total = 1 + self.cost(node.args[0])
            self._copy(node, node.args[0])
            return clip(total)
        costs = [self.cost(arg) for arg in node.args]
        target: Argument | None = None
        total = 0
        if node.target is not None and node not in self._checked.plain:
            total = self.cost(node.target)
            target = self._argument(node.target)
        arguments = [self._argument(arg) for arg in node.args]
        most, size = 0, None
        for overload in self._checked.overloads.get(node, ()):
            match overload.id:
                case "logical_and" | "logical_or":
                    found, made = 0, None
                case "conditional":
                    found, made = self._conditional(node, costs)
                case _:
                    found, made = 1, None
                    if overload.estimate is not None and (estimated := overload.estimate(target, arguments)):
                        found, made = estimated
                    self._follow(node, overload.id)
            most = max(most, found)
            if made is not None:
                size = made if size is None else size.union(made)
        own = sum(costs) if node.function != "_?_:_" else costs[0]
        if size is None and node.function in ("_[_]",):
            entries = self._entry_sizes(node.args[0])
            size = entries[1] if entries is not None else self._known_size(node)
        if size is None:
            size = self._known_size(node)
        if size is not None:
            self._sizes[node] = size
        return clip(total + most + own)

    def _conditional(self, node: Call, costs: list[int]) -> tuple[int, Size]:
        one, other = node.args[1:]
        first, second = self._entry_sizes(one), self._entry_sizes(other)
        if first and second:
            self._entries[node] = first[0].union(second[0]), first[1].union(second[1])
        return max(costs[1:]), self._size(one).union(self._size(other))

    def _follow(self, node: Call, name: str) -> None:
        """Record the origin of an indexed value, and the elements of a list that joins two."""
        if name in ("index_list", "index_map"):
            if (below := self._item(self._origins.get(node.args[0]))) is not None:
                self._origins[node] = below
        elif name == "add_list":
            first, second = self._entry_sizes(node.args[0]), self._entry_sizes(node.args[1])
            if first and second:
                self._entries[node] = first[0].union(second[0]), first[1].union(second[1])

    def _copy(self, node: Node, other: Node) -> None:
        if (size := self._known_size(other)) is not None:
            self._sizes[node] = size
        if (entries := self._entry_sizes(other)) is not None:
            self._entries[node] = entries

    def _bind(self, node: Bind) -> int:
        total = LIST + self.cost(node.value)
        local = _Local(self._origins.get(node.value), self._known_size(node.value), self._entry_sizes(node.value))
        self._scopes.append({node.name: local})
        total += self.cost(node.body)
        self._copy(node, node.body)
        self._scopes.pop()
        return clip(total)

    def _fold(self, node: Fold) -> int:
        total = self.cost(node.over) + self.cost(node.start)
        origin, entries = self._origins.get(node.over), self._entry_sizes(node.over)
        is_list = self._checked.types[node.over].kind == "list"
        size_of_keys, size_of_values = entries if entries is not None else (None, None)
        value = _Local(self._item(origin), size_of_values, None)
        key = _Local(None if is_list else self._key(origin), size_of_keys, None)
        start = _Local(None, self._known_size(node.start), self._entry_sizes(node.start))
        self._scopes.append({"@result": start})
        if node.second:
            self._scopes.append({node.variable: key, node.second: value})
        else:
            self._scopes.append({node.variable: value if is_list else key})
        each = self.cost(node.condition) + self.cost(node.step)
        self._scopes.pop()
        total += self.cost(node.result)
        self._scopes.pop()
        times = self._size(node.over)
        if isinstance(node.start, ListOf | MapOf):
            self._sizes[node] = times
            if (made := self._entry_sizes(node.step)) is not None:
                self._entries[node] = made
        elif (size := self._known_size(node.start)) is not None:
            self._sizes[node] = size
        return clip(total + clip(times.most * clip(each)))
