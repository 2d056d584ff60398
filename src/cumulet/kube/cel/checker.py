"""The type checker: the types of an expression's parts, and the overloads that it calls (cel-go's `checker`)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from cumulet.kube.cel import types
from cumulet.kube.cel.errors import CompileError
from cumulet.kube.cel.functions import Library, Overload
from cumulet.kube.cel.syntax import Bind, Call, Fold, Ident, ListOf, Literal, MapOf, Node, Select, Source
from cumulet.kube.cel.types import Bindings, Type
from cumulet.kube.cel.values import Constant, Uint

_LITERALS: dict[type, Type] = {
    bool: types.BOOL,
    int: types.INT,
    Uint: types.UINT,
    float: types.DOUBLE,
    str: types.STRING,
    bytes: types.BYTES,
    type(None): types.NULL,
}
#: Functions that are written as operators.
_LOGIC = ("_&&_", "_||_")
#: The most errors that are reported for one expression.
_MOST = 100


@dataclass(eq=False, slots=True)
class Checked:
    """A tree with the types of its nodes, the overloads of its calls, and the variables of its names."""

    root: Node
    types: dict[Node, Type] = field(default_factory=dict)
    overloads: dict[Node, list[Overload]] = field(default_factory=dict)
    #: The full names of variables and types, for the identifiers and selections that refer to them.
    names: dict[Node, str] = field(default_factory=dict)
    #: The calls of a function with a dot in its name, where the part before the dot is not a value.
    plain: set[Node] = field(default_factory=set)

    @property
    def result(self) -> Type:
        """The type of the value."""
        return self.types[self.root]


def check(source: Source, root: Node, variables: Mapping[str, Type], library: Library) -> Checked:
    """Check a tree. Raises `CompileError` with all errors."""
    checker = _Checker(source, variables, library)
    checker.check(root)
    if checker.errors:
        found = sorted(checker.errors, key=lambda item: item[0])[:_MOST]
        raise CompileError("\n".join(source.error(at, message) for at, message in found))
    made = checker.made
    made.root = root
    made.types = {node: checker.bindings.resolve(kind, final=True) for node, kind in made.types.items()}
    return made


class _Checker:
    def __init__(self, source: Source, variables: Mapping[str, Type], library: Library) -> None:
        self._variables = variables
        self._functions = library.functions
        self._scopes: list[dict[str, Type]] = []
        self.bindings = Bindings()
        self.errors: list[tuple[int, str]] = []
        self.made = Checked(Literal(0, None))

    def check(self, node: Node) -> Type:
        """Return the type of a node, as far as it is known. Errors are collected."""
        known = self.made.types.get(node)
        if known is not None and not isinstance(node, Ident):
            return known
        found = self._of(node)
        self.made.types[node] = found
        return found

    def _of(self, node: Node) -> Type:
        match node:
            case Literal():
                return _LITERALS[type(node.value)]
            case Ident():
                return self._ident(node)
            case Select():
                return self._select(node)
            case Call():
                return self._call(node)
            case ListOf():
                return self._list(node)
            case MapOf():
                return self._typed(node) if node.type else self._map(node)
            case Fold():
                return self._fold(node)
            case Bind():
                self._scopes.append({node.name: self.check(node.value)})
                found = self.check(node.body)
                self._scopes.pop()
                return found
        raise AssertionError(node)

    def _error(self, node: Node, message: str) -> Type:
        self.errors.append((node.at, message))
        return types.ERROR

    def _undeclared(self, node: Node, name: str) -> Type:
        return self._error(node, f"undeclared reference to '{name}' (in container '')")

    def _known(self, name: str) -> Type | None:
        """Return the type of a variable, or of a type's name as a value."""
        if (found := self._variables.get(name)) is not None:
            return found
        if (named := types.NAMES.get(name)) is not None:
            return Type("type", (named,))
        return None

    def _ident(self, node: Ident) -> Type:
        for scope in reversed(self._scopes):
            if node.name in scope:
                return scope[node.name]
        found = self._known(node.name)
        if found is None:
            return self._undeclared(node, node.name)
        self.made.names[node] = node.name
        return found

    def _is_local(self, name: str) -> bool:
        return any(name in scope for scope in self._scopes)

    def _select(self, node: Select) -> Type:
        if not node.test and not node.optional:
            name = _qualified(node)
            if name and not self._is_local(name.partition(".")[0]) and (found := self._known(name)) is not None:
                self.made.names[node] = name
                return found
        found = self._field(node)
        return types.BOOL if node.test else found

    def _field(self, node: Select) -> Type:
        operand = self.bindings.resolve(self.check(node.operand))
        is_optional = operand.kind == "optional"
        target = operand.params[0] if is_optional else operand
        found = types.DYN
        match target.kind:
            case "map":
                found = target.params[1]
            case "object":
                known = (target.fields or {}).get(node.field)
                found = known if known is not None else self._error(node, f"undefined field '{node.field}'")
            case "param":
                self.bindings.assign(types.DYN, target)
            case "dyn" | "error":
                pass
            case _:
                self._error(node, f"type '{target!s}' does not support field selection")
        return types.optional(found) if is_optional or node.optional else found

    def _call(self, node: Call) -> Type:
        arguments = [self.check(arg) for arg in node.args]
        if node.target is not None:
            prefix = _qualified(node.target)
            if prefix and not self._is_local(prefix.partition(".")[0]):
                overloads = self._functions.get(f"{prefix}.{node.function}")
                if overloads is not None:
                    self.made.plain.add(node)
                    return self._resolve(node, overloads, arguments, is_method=False)
            arguments = [self.check(node.target), *arguments]
        overloads = self._functions.get(node.function)
        if overloads is None:
            return self._undeclared(node, node.function)
        return self._resolve(node, overloads, arguments, is_method=node.target is not None)

    def _resolve(self, node: Call, overloads: list[Overload], arguments: list[Type], *, is_method: bool) -> Type:
        if node.function in _LOGIC:
            for arg, kind in zip(node.args, arguments, strict=True):
                if not self.bindings.assign(types.BOOL, kind):
                    shown = str(self.bindings.resolve(kind, final=True))
                    self._error(arg, f"expected type 'bool' but found '{shown}'")
            self.made.overloads[node] = overloads
            return types.BOOL
        fitting: list[Overload] = []
        result: Type | None = None
        for overload in overloads:
            if overload.is_method != is_method:
                continue
            made, *wanted = self.bindings.instance([overload.result, *overload.args])
            if not self.bindings.assign_all(wanted, arguments):
                continue
            fitting.append(overload)
            resolved = self.bindings.resolve(made)
            if result is None:
                result = resolved
            elif result.kind != "dyn" and resolved != result:
                result = types.DYN
        if result is None:
            kinds = [str(self.bindings.resolve(kind, final=True)) for kind in arguments]
            form = f"{kinds[0]}.({', '.join(kinds[1:])})" if is_method else f"({', '.join(kinds)})"
            return self._error(node, f"found no matching overload for '{node.function}' applied to '{form}'")
        self.made.overloads[node] = fitting
        return result

    def _joined(self, before: Type | None, found: Type) -> Type:
        """Return the element type of a list or map: dynamic where the elements differ."""
        if before is None:
            return found
        return types.most_general(before, found) if self.bindings.assign(before, found) else types.DYN

    def _unwrapped(self, node: Node, found: Type) -> Type:
        resolved = self.bindings.resolve(found)
        if resolved.kind == "optional":
            return resolved.params[0]
        if resolved.kind not in ("dyn", "error"):
            self._error(node, f"expected type 'optional_type({resolved!s})' but found '{resolved!s}'")
        return resolved

    def _list(self, node: ListOf) -> Type:
        joined: Type | None = None
        for index, item in enumerate(node.items):
            found = self.check(item)
            joined = self._joined(joined, self._unwrapped(item, found) if index in node.optional else found)
        return types.list_of(self.bindings.fresh() if joined is None else joined)

    def _map(self, node: MapOf) -> Type:
        key: Type | None = None
        value: Type | None = None
        for entry in node.entries:
            key = self._joined(key, self.check(entry.key))
            found = self.check(entry.value)
            value = self._joined(value, self._unwrapped(entry.value, found) if entry.optional else found)
        if key is None or value is None:
            return types.map_of(self.bindings.fresh(), self.bindings.fresh())
        return types.map_of(key, value)

    def _typed(self, node: MapOf) -> Type:
        """Return the type of `Object{…}`, whose fields have the types of their paths, or of `JSONPatch{…}`."""
        kind = self._variables.get(node.type) if node.type == "JSONPatch" else None
        is_object = node.type == "Object" or node.type.startswith("Object.")
        if kind is None and not (is_object and "Object" in self._variables):
            return self._undeclared(node, node.type)
        for entry in node.entries:
            assert isinstance(entry.key, Literal)
            assert isinstance(entry.key.value, str)
            name, value = entry.key.value, entry.value
            found = self.check(value)
            if entry.optional:
                self._unwrapped(value, found)
            if kind is None:
                self._place(value, f"{node.type}.{name}")
            elif (wanted := (kind.params[0].fields or {}).get(name)) is None:
                self._error(node, f"undefined field '{name}'")
            elif not entry.optional and not self.bindings.assign(wanted, found):
                text = f"expected type of field '{name}' is '{wanted!s}' but provided type is '{found!s}'"
                self._error(node, text)
            self.check(entry.key)
        return types.object_type(node.type)

    def _place(self, value: Node, wanted: str) -> None:
        """Check that nested typed objects, also in lists, have the type of their path."""
        if isinstance(value, MapOf) and value.type and value.type != "JSONPatch":
            if value.type != wanted:
                why = f"unexpected type name {value.type!r}, expected {wanted!r}, which matches field name path from root Object type"
                self._error(value, why)
        elif isinstance(value, ListOf):
            for item in value.items:
                self._place(item, wanted)

    def _fold(self, node: Fold) -> Type:
        over = self.bindings.resolve(self.check(node.over))
        start = self.check(node.start)
        first, second = types.DYN, types.DYN
        match over.kind:
            case "list":
                first, second = (types.INT, over.params[0]) if node.second else (over.params[0], types.DYN)
            case "map":
                first, second = over.params[0], over.params[1]
            case "dyn" | "error" | "param":
                self.bindings.assign(types.DYN, over)
            case _:
                self._error(
                    node.over,
                    f"expression of type '{over!s}' cannot be range of a comprehension (must be list, map, or dynamic)",
                )
                first = second = types.ERROR
        self._scopes.append({"@result": start})
        self._scopes.append({node.variable: first, **({node.second: second} if node.second else {})})
        self._must(node.condition, types.BOOL)
        self._must(node.step, start)
        self._scopes.pop()
        found = self.check(node.result)
        self._scopes.pop()
        return self.bindings.resolve(found)

    def _must(self, node: Node, wanted: Type) -> None:
        found = self.check(node)
        if not self.bindings.assign(wanted, found):
            one, other = (str(self.bindings.resolve(kind, final=True)) for kind in (wanted, found))
            self._error(node, f"expected type '{one}' but found '{other}'")


def _qualified(node: Node) -> str:
    """Return the name that a chain of selections forms, or an empty text for another expression."""
    parts: list[str] = []
    while isinstance(node, Select) and not node.test and not node.optional:
        parts.append(node.field)
        node = node.operand
    if not isinstance(node, Ident):
        return ""
    return ".".join([node.name, *reversed(parts)])


def constant(node: Node) -> Constant:
    """Return the value of a literal, or `None`."""
    return node.value if isinstance(node, Literal) else None
