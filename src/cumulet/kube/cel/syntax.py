"""The tree of an expression, as the parser builds it (cel-go's `common/ast`).

Macros are expanded: `list.all(x, p)` is a `Fold` with an accumulator. Every node has the position of its token in the
text, for error messages.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from cumulet.kube.cel.values import Constant

#: The accumulator of a fold, which no expression can name.
RESULT = "@result"


@dataclass(eq=False, slots=True)
class Node:
    """A part of an expression, at a position in its text."""

    at: int


@dataclass(eq=False, slots=True)
class Literal(Node):
    """A constant."""

    value: Constant


@dataclass(eq=False, slots=True)
class Ident(Node):
    """A variable, or the name of a type."""

    name: str


@dataclass(eq=False, slots=True)
class Select(Node):
    """`operand.field`, `operand.?field`, or the test `has(operand.field)`."""

    operand: Node
    field: str
    test: bool = False
    optional: bool = False


@dataclass(eq=False, slots=True)
class Call(Node):
    """A function call, whose first argument can be its receiver. Operators are functions: `_+_`."""

    function: str
    target: Node | None
    args: list[Node]


@dataclass(eq=False, slots=True)
class ListOf(Node):
    """`[a, ?b]`. `optional` are the indexes of the elements that are added only if they have a value."""

    items: list[Node]
    optional: frozenset[int] = frozenset()


@dataclass(eq=False, slots=True)
class Entry:
    """An entry of a map, or a field of a typed object. The key of a field is a literal."""

    key: Node
    value: Node
    optional: bool = False


@dataclass(eq=False, slots=True)
class MapOf(Node):
    """`{a: b}`, and `Object{a: b}` where `type` is set."""

    entries: list[Entry]
    type: str = ""


@dataclass(eq=False, slots=True)
class Fold(Node):
    """A macro over a list or map: `step` for each element, as long as `condition` holds, then `result`.

    With two variables, the first is the index or key. `collects` marks an accumulator to which `step` only adds.
    """

    over: Node
    variable: str
    second: str
    start: Node
    condition: Node
    step: Node
    result: Node
    collects: bool = False


@dataclass(eq=False, slots=True)
class Bind(Node):
    """`body`, with a name for the value of another expression."""

    name: str
    value: Node
    body: Node


@dataclass(slots=True)
class Source:
    """The text of an expression."""

    text: str
    starts: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.starts = [0, *(index + 1 for index, char in enumerate(self.text) if char == "\n")]

    def error(self, at: int, message: str) -> str:
        """Return a message with its position, in the compiler's format."""
        line = max(index for index, start in enumerate(self.starts) if start <= at)
        column = at - self.starts[line]
        end = self.starts[line + 1] - 1 if line + 1 < len(self.starts) else len(self.text)
        shown = self.text[self.starts[line] : end].replace("\t", " ")
        return f"ERROR: <input>:{line + 1}:{column + 1}: {message}\n | {shown}\n | {'.' * column}^"


def children(node: Node) -> list[Node]:
    """Return the direct children of a node."""
    match node:
        case Select():
            return [node.operand]
        case Call():
            return node.args if node.target is None else [node.target, *node.args]
        case ListOf():
            return node.items
        case MapOf():
            return [part for entry in node.entries for part in (entry.key, entry.value)]
        case Fold():
            return [node.over, node.start, node.condition, node.step, node.result]
        case Bind():
            return [node.value, node.body]
    return []
