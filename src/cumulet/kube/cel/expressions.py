"""Reading expressions, and finding their values."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, Any

from cumulet.kube.cel import amounts, authorizing, network, values
from cumulet.kube.cel.errors import CelError

if TYPE_CHECKING:
    import cel

_LENGTH = 16 * 1024
_FUNCTIONS: dict[str, Callable[..., Any]] = {
    **values.FUNCTIONS,
    **amounts.FUNCTIONS,
    **network.FUNCTIONS,
    **authorizing.FUNCTIONS,
}
#: Names that stand before functions: `sets.contains(…)`.
_NAMESPACES = {
    "sets": values.SETS,
    "math": values.MATH,
    "base64": values.BASE64,
    "jsonpatch": values.JSON_PATCH,
    "ip": network.IP_NAMESPACE,
}
#: What the language itself has.
_STANDARD = frozenset(
    [
        "size",
        "startsWith",
        "endsWith",
        "matches",
        "int",
        "uint",
        "double",
        "string",
        "bool",
        "bytes",
        "duration",
        "timestamp",
        "type",
        "dyn",
        "getFullYear",
        "getMonth",
        "getDate",
        "getDayOfMonth",
        "getDayOfWeek",
        "getDayOfYear",
        "getHours",
        "getMinutes",
        "getSeconds",
        "getMilliseconds",
    ]
)
_TYPES = frozenset(("int", "uint", "double", "string", "bool", "bytes", "list", "map", "null_type", "type"))
_OPERATOR = re.compile(r"\W|^_|^@", re.ASCII)
_MACRO = re.compile(r"\.\s*(?:all|exists|exists_one|filter|map)\s*\(\s*(\w+)\s*,", re.ASCII)


def check(expression: str, variables: Collection[str]) -> None:
    """Raises `CelError` where an expression cannot be read, or speaks of a variable or function that there is not."""
    program = _compiled(expression)
    functions = {name for name in program.functions() if not _OPERATOR.search(name)} - _FUNCTIONS.keys() - _STANDARD
    own = {match[1] for match in _MACRO.finditer(expression)}
    names = set(program.variables()) - own - set(variables) - _NAMESPACES.keys() - _TYPES
    if functions or names:
        column, name = min((_position(expression, name), name) for name in functions | names)
        why = f"undeclared reference to '{name}' (in container '')"
        raise CelError(f"compilation failed: ERROR: <input>:1:{column}: {why}")


def _position(expression: str, name: str) -> int:
    found = re.search(rf"\b{re.escape(name)}\b", expression, re.ASCII)
    return found.start() + 1 if found else 1


def evaluate(
    expression: str, variables: dict[str, Any], functions: dict[str, Callable[..., Any]] | None = None
) -> Any:
    """The value of an expression; `functions` are those that know of the request. Raises `CelError`."""
    import cel

    program = _compiled(expression)
    known = {**_FUNCTIONS, **functions} if functions else _FUNCTIONS
    try:
        return program.execute(cel.Context(variables={**_NAMESPACES, **variables}, functions=known))
    except KeyError as error:
        raise CelError(f"no such key: {str(error).strip(chr(39))}") from None
    except (
        ValueError,
        TypeError,
        ArithmeticError,
        RuntimeError,
        IndexError,
        RecursionError,
        AttributeError,
    ) as error:
        raise CelError(str(error)) from None


def message(
    rule: dict[str, Any],
    variables: dict[str, Any],
    otherwise: str,
    functions: dict[str, Callable[..., Any]] | None = None,
) -> str:
    """What a rule says of what it does not allow: the value of its `messageExpression`, its `message`, or another text."""
    if expression := rule.get("messageExpression"):
        try:
            found = evaluate(expression, variables, functions)
            if isinstance(found, str) and found.strip():
                return found
        except CelError:
            pass  # then what is written is said
    return str(rule.get("message") or otherwise)


@functools.lru_cache(maxsize=1024)
def _compiled(expression: str) -> cel.Program:
    # Most servers never see an expression.
    import cel

    if len(expression) > _LENGTH:
        raise CelError(f"the expression is longer than {_LENGTH} bytes")
    try:
        return cel.compile(expression)
    except (ValueError, RecursionError) as error:
        raise CelError(f"compilation failed: {error}") from None
