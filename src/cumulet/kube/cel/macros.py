"""Macros, which the parser expands (cel-go's `parser/macro.go`, `ext/comprehensions.go`, `cel/library.go`)."""

from __future__ import annotations

import itertools

from cumulet.kube.cel.syntax import RESULT, Bind, Call, Fold, Ident, ListOf, Literal, MapOf, Node, Select

_COUNTER = itertools.count()
_QUANTIFIERS = ("all", "exists", "existsOne", "exists_one")
_TRANSFORMS = ("transformList", "transformMap", "transformMapEntry")


class MacroError(Exception):
    """The arguments of a macro are invalid."""

    def __init__(self, at: int, message: str) -> None:
        super().__init__(message)
        self.at = at


def expand(call: Call) -> Node:
    """Return the expansion of a macro call, or the call itself where it is no macro. Raises `MacroError`."""
    target, args, count = call.target, call.args, len(call.args)
    if target is None:
        if call.function == "has" and count == 1:
            return _has(call)
        return call
    name = call.function
    if name in _QUANTIFIERS and count in (2, 3):
        return _quantifier(call, target, count - 1)
    if name == "map" and count in (2, 3):
        variable = _variable(args[0], "argument is not an identifier")
        return _collecting(call, target, variable, "", args[1] if count == 3 else None, [args[-1]])
    if name == "filter" and count == 2:
        variable = _variable(args[0], "argument is not an identifier")
        return _collecting(call, target, variable, "", args[1], [Ident(args[0].at, variable)])
    if name in _TRANSFORMS and count in (3, 4):
        return _transform(call, target)
    if name in ("optMap", "optFlatMap") and count == 2:
        return _optional(call, target)
    if name == "sortBy" and count == 2:
        return _sort_by(call, target)
    return call


def _has(call: Call) -> Node:
    (argument,) = call.args
    if not isinstance(argument, Select) or argument.optional or argument.test:
        raise MacroError(argument.at, "invalid argument to has() macro")
    return Select(call.at, argument.operand, argument.field, test=True)


def _variable(node: Node, why: str) -> str:
    if not isinstance(node, Ident):
        raise MacroError(node.at, why)
    if node.name in (RESULT, "__result__"):
        raise MacroError(node.at, "iteration variable overwrites accumulator variable")
    return node.name


def _variables(call: Call, count: int) -> tuple[str, str]:
    if count == 1:
        return _variable(call.args[0], "argument must be a simple name"), ""
    first, second = (_variable(node, "argument must be a simple name") for node in call.args[:2])
    if first == second:
        raise MacroError(call.args[1].at, f"duplicate variable name: {first}")
    return first, second


def _quantifier(call: Call, target: Node, count: int) -> Node:
    first, second = _variables(call, count)
    at, test = call.at, call.args[-1]
    so_far = Ident(at, RESULT)
    if call.function == "all":
        goes_on = Call(at, "@not_strictly_false", None, [so_far])
        step = Call(at, "_&&_", None, [so_far, test])
        return Fold(at, target, first, second, Literal(at, True), goes_on, step, so_far)
    if call.function == "exists":
        goes_on = Call(at, "@not_strictly_false", None, [Call(at, "!_", None, [so_far])])
        step = Call(at, "_||_", None, [so_far, test])
        return Fold(at, target, first, second, Literal(at, False), goes_on, step, so_far)
    more = Call(at, "_+_", None, [so_far, Literal(at, 1)])
    step = Call(at, "_?_:_", None, [test, more, so_far])
    result = Call(at, "_==_", None, [so_far, Literal(at, 1)])
    return Fold(at, target, first, second, Literal(at, 0), Literal(at, True), step, result)


def _collecting(
    call: Call, target: Node, first: str, second: str, test: Node | None, added: list[Node], into: str = "list"
) -> Fold:
    """Return a fold that adds an item to a list, or an entry to a map, for each element that passes a test."""
    at = call.at
    so_far = Ident(at, RESULT)
    step: Node
    if into == "list":
        start: Node = ListOf(at, [])
        step = Call(at, "_+_", None, [so_far, ListOf(at, added)])
    else:
        start = MapOf(at, [])
        step = Call(at, "cel.@mapInsert", None, [so_far, *added])
    if test is not None:
        step = Call(at, "_?_:_", None, [test, step, so_far])
    return Fold(at, target, first, second, start, Literal(at, True), step, so_far, collects=True)


def _transform(call: Call, target: Node) -> Node:
    first, second = _variables(call, 2)
    test = call.args[2] if len(call.args) == 4 else None
    last = call.args[-1]
    match call.function:
        case "transformList":
            return _collecting(call, target, first, second, test, [last])
        case "transformMap":
            return _collecting(call, target, first, second, test, [Ident(call.at, first), last], "map")
    return _collecting(call, target, first, second, test, [last], "map")


def _optional(call: Call, target: Node) -> Node:
    """Expand `o.optMap(x, f)` to `o.hasValue() ? optional.of(f) : optional.none()`, with `x` for the value."""
    name = _variable(call.args[0], f"{call.function}() variable name must be a simple identifier")
    at = call.at
    held = f"@target{next(_COUNTER)}"
    there = Call(at, "hasValue", Ident(at, held), [])
    body: Node = Bind(at, name, Call(at, "value", Ident(at, held), []), call.args[1])
    if call.function == "optMap":
        body = Call(at, "optional.of", None, [body])
    none = Call(at, "optional.none", None, [])
    return Bind(at, held, target, Call(at, "_?_:_", None, [there, body, none]))


def _sort_by(call: Call, target: Node) -> Node:
    held = f"@sorted{next(_COUNTER)}"
    variable = _variable(call.args[0], "argument is not an identifier")
    keys = _collecting(call, Ident(call.at, held), variable, "", None, [call.args[1]])
    return Bind(call.at, held, target, Call(call.at, "@sortByAssociatedKeys", Ident(call.at, held), [keys]))
