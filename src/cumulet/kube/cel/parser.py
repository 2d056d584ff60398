"""The parser of expressions (cel-go's `parser`)."""

from __future__ import annotations

from cumulet.kube.cel import lexer, macros
from cumulet.kube.cel.errors import CompileError
from cumulet.kube.cel.lexer import RESERVED, Number, Token
from cumulet.kube.cel.syntax import Call, Entry, Ident, ListOf, Literal, MapOf, Node, Select, Source, children

#: The most characters of an expression, as in upstream.
_LENGTH = 100_000
#: The deepest nesting. Upstream allows 250 of its own grammar rules, several for each level.
_DEPTH = 60
#: The most binary operators in a row, each of which is nested in the next.
_ROW = 120
#: The deepest nesting of nodes in the tree.
_TREE = 200

_LEVELS = dict.fromkeys(("<", "<=", ">=", ">", "==", "!=", "in"), 0) | {
    "+": 1,
    "-": 1,
    "*": 2,
    "/": 2,
    "%": 2,
}
_EXPECTED = (
    "'[', '{', '(', '.', '-', '!', 'true', 'false', 'null', NUM_FLOAT, NUM_INT, NUM_UINT, STRING, BYTES, IDENTIFIER"
)


def parse(source: Source) -> Node:
    """Return the tree of a text. Raises `CompileError`."""
    if len(source.text) > _LENGTH:
        why = f"expression code point size exceeds limit: size: {len(source.text)}, limit {_LENGTH}"
        raise CompileError(f"ERROR: <input>:-1:0: {why}")
    found = _Parser(source).whole()
    if _depth(found) > _TREE:
        raise CompileError(source.error(found.at, f"expression recursion limit exceeded: {_TREE}"))
    return found


def _depth(root: Node) -> int:
    most, stack = 0, [(root, 1)]
    while stack and most <= _TREE:
        node, depth = stack.pop()
        most = max(most, depth)
        stack.extend((below, depth + 1) for below in children(node))
    return most


class _Parser:
    def __init__(self, source: Source) -> None:
        self._source = source
        self._tokens = lexer.tokens(source)
        self._index = 0
        self._depth = 0

    def whole(self) -> Node:
        found = self._expression()
        if self._here.kind != "end":
            raise self._unexpected(f"extraneous input '{self._here.text}' expecting <EOF>")
        return found

    @property
    def _here(self) -> Token:
        return self._tokens[self._index]

    def _error(self, at: int, message: str) -> CompileError:
        return CompileError(self._source.error(at, message))

    def _unexpected(self, message: str = "") -> CompileError:
        shown = message or f"mismatched input '{self._here.text}' expecting {{{_EXPECTED}}}"
        return self._error(self._here.at, f"Syntax error: {shown}")

    def _next(self) -> Token:
        token = self._here
        self._index += token.kind != "end"
        return token

    def _take(self, kind: str) -> Token | None:
        return self._next() if self._here.kind == kind else None

    def _need(self, kind: str) -> Token:
        if self._here.kind != kind:
            wanted = "IDENTIFIER" if kind == "name" else f"'{kind}'"
            raise self._unexpected(f"mismatched input '{self._here.text}' expecting {wanted}")
        return self._next()

    def _row(self, count: int) -> None:
        if count > _ROW:
            raise self._error(self._here.at, f"expression recursion limit exceeded: {_ROW}")

    def _expression(self) -> Node:
        self._depth += 1
        if self._depth > _DEPTH:
            raise self._error(self._here.at, f"expression recursion limit exceeded: {_DEPTH}")
        found = self._logical("||", "_||_")
        if question := self._take("?"):
            yes = self._logical("||", "_||_")
            self._need(":")
            found = Call(question.at, "_?_:_", None, [found, yes, self._expression()])
        self._depth -= 1
        return found

    def _logical(self, operator: str, function: str) -> Node:
        """Parse the operands of `||` or `&&` into a single call for each operator."""
        below = self._conjunction if operator == "||" else self._binary
        terms, at = [below()], self._here.at
        while self._take(operator):
            terms.append(below())
        return terms[0] if len(terms) == 1 else Call(at, function, None, terms)

    def _conjunction(self) -> Node:
        return self._logical("&&", "_&&_")

    def _binary(self, least: int = 0) -> Node:
        """Parse operators that bind as strongly as a level, or more strongly."""
        found, count = self._unary(), 0
        while (level := _LEVELS.get(self._here.kind, -1)) >= least:
            count += 1
            self._row(count)
            operator = self._next()
            function = "@in" if operator.kind == "in" else f"_{operator.kind}_"
            found = Call(operator.at, function, None, [found, self._binary(level + 1)])
        return found

    def _unary(self) -> Node:
        start = self._here
        if start.kind not in "!-":
            return self._member()
        count = 0
        while self._take(start.kind):
            count += 1
        if (
            start.kind == "-"
            and count % 2
            and type(self._here.value) in (Number, float)
            and self._here.kind == "literal"
        ):
            following = self._tokens[self._index + 1].kind
            if following not in (".", "["):
                token = self._next()
                if isinstance(token.value, float):
                    return Literal(start.at, -token.value)
                assert isinstance(token.value, Number)
                return Literal(start.at, lexer.integer(self._source, token.value, start.at, negative=True))
        found = self._member()
        # Two equal operators cancel out.
        return Call(start.at, "!_" if start.kind == "!" else "-_", None, [found]) if count % 2 else found

    def _member(self) -> Node:
        found, count = self._primary(), 0
        while True:
            count += 1
            self._row(count)
            if dot := self._take("."):
                optional = self._take("?") is not None
                name = self._take("quoted")
                if name is None:
                    name = self._need("name")
                    if not optional and (opened := self._take("(")):
                        args = self._arguments()
                        found = self._called(Call(opened.at, name.text, found, args))
                        continue
                found = Select(dot.at, found, name.text, optional=optional)
            elif opened := self._take("["):
                function = "_[?_]" if self._take("?") else "_[_]"
                found = Call(opened.at, function, None, [found, self._expression()])
                self._need("]")
            else:
                return found

    def _arguments(self) -> list[Node]:
        found: list[Node] = []
        if self._take(")"):
            return found
        found.append(self._expression())
        while self._take(","):
            found.append(self._expression())
        self._need(")")
        return found

    def _called(self, call: Call) -> Node:
        try:
            return macros.expand(call)
        except macros.MacroError as error:
            raise self._error(error.at, str(error)) from None

    def _primary(self) -> Node:
        token = self._next()
        match token.kind:
            case "literal":
                value = token.value
                if isinstance(value, Number):
                    value = lexer.integer(self._source, value, token.at)
                return Literal(token.at, value)
            case "(":
                found = self._expression()
                self._need(")")
                return found
            case "[":
                return self._list(token)
            case "{":
                return MapOf(token.at, self._entries())
            case "." if self._here.kind == "name":
                return self._named(self._next())
            case "name":
                return self._named(token)
        self._index -= token.kind != "end"
        raise self._unexpected()

    def _named(self, token: Token) -> Node:
        if token.text in RESERVED:
            raise self._error(token.at, f"reserved identifier: {token.text}")
        if opened := self._take("("):
            return self._called(Call(opened.at, token.text, None, self._arguments()))
        if made := self._typed(token):
            return made
        return Ident(token.at, token.text)

    def _typed(self, token: Token) -> Node | None:
        """Parse a typed object, `Object.spec{…}`, where one begins."""
        index, names = self._index, [token.text]
        while self._tokens[index].kind == "." and self._tokens[index + 1].kind == "name":
            names.append(self._tokens[index + 1].text)
            index += 2
        if self._tokens[index].kind != "{":
            return None
        self._index = index
        opened = self._next()
        return MapOf(opened.at, self._entries(fields=True), ".".join(names))

    def _list(self, opened: Token) -> ListOf:
        items: list[Node] = []
        optional = set()
        while not self._take("]"):
            if self._take("?"):
                optional.add(len(items))
            items.append(self._expression())
            if not self._take(","):
                self._need("]")
                break
        return ListOf(opened.at, items, frozenset(optional))

    def _entries(self, *, fields: bool = False) -> list[Entry]:
        found: list[Entry] = []
        while not self._take("}"):
            optional = self._take("?") is not None
            if fields:
                name = self._take("quoted") or self._need("name")
                key: Node = Literal(name.at, name.text)
            else:
                key = self._expression()
            self._need(":")
            found.append(Entry(key, self._expression(), optional))
            if not self._take(","):
                self._need("}")
                break
        return found
