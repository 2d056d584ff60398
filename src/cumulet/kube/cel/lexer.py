"""The tokens of expressions (cel-spec, `doc/langdef.md`, "Syntax")."""

from __future__ import annotations

import re
from typing import NamedTuple

from cumulet.common.ascii import fold
from cumulet.kube.cel.errors import CompileError
from cumulet.kube.cel.syntax import Source
from cumulet.kube.cel.values import Constant, Uint

_MOST, _LEAST, _MOST_UINT = 2**63 - 1, -(2**63), 2**64 - 1
_TOKEN = re.compile(
    r"""
      (?P<space>[\t\ \r\n\f]+|//[^\n]*)
    | (?P<string>[bB]?[rR]?(?:\"{3}|'{3}|"|')|[rR][bB](?:\"{3}|'{3}|"|'))
    | (?P<double>[0-9]+\.[0-9]+(?:[eE][+-]?[0-9]+)?|[0-9]+[eE][+-]?[0-9]+|\.[0-9]+(?:[eE][+-]?[0-9]+)?)
    | (?P<integer>(?:0x[0-9a-fA-F]+|[0-9]+)[uU]?)
    | (?P<name>[A-Za-z_][A-Za-z0-9_]*)
    | (?P<quoted>`[A-Za-z0-9_.\-/\ ]+`)
    | (?P<operator>==|!=|<=|>=|&&|\|\||[<>\[\]{}().,\-!?:+*/%])
    """,
    re.VERBOSE,
)
_ESCAPE = re.compile(
    r"\\(?:([abfnrtv\"'\\?`])|([0-3][0-7]{2})|[xX]([0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8}))"
)
_PLAIN = {"a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v"}
#: Names that the language reserves.
RESERVED = frozenset(
    [
        "as",
        "break",
        "const",
        "continue",
        "else",
        "for",
        "function",
        "if",
        "import",
        "let",
        "loop",
        "package",
        "namespace",
        "return",
        "var",
        "void",
        "while",
    ]
)
_CONSTANTS: dict[str, Constant] = {"true": True, "false": False, "null": None}


class Token(NamedTuple):
    """A token: `kind` is `name`, `quoted`, `literal`, `end`, or the operator itself."""

    kind: str
    text: str
    at: int
    value: Constant = None


def tokens(source: Source) -> list[Token]:
    """Return the tokens of a text, followed by its end. Raises `CompileError`."""
    text, position, found = source.text, 0, []
    while position < len(text):
        match = _TOKEN.match(text, position)
        if match is None:
            raise CompileError(
                source.error(position, f"Syntax error: token recognition error at: '{text[position]}'")
            )
        kind, word = match.lastgroup or "", match[0]
        at, position = position, match.end()
        match kind:
            case "space":
                continue
            case "string":
                value, position = _string(source, word, at, position)
                found.append(Token("literal", text[at:position], at, value))
            case "double":
                found.append(Token("literal", word, at, _double(source, word, at)))
            case "integer":
                found.append(Token("literal", word, at, _integer(word)))
            case "name" if word in _CONSTANTS:
                found.append(Token("literal", word, at, _CONSTANTS[word]))
            case "name" if word == "in":
                found.append(Token("in", word, at))
            case "name" | "quoted":
                found.append(Token(kind, word.strip("`"), at))
            case _:
                found.append(Token(word, word, at))
    found.append(Token("end", "<EOF>", len(text)))
    return found


class Number(int):
    """An integer without its sign. A minus before it makes the smallest integer valid."""


def integer(source: Source, value: Number, at: int, *, negative: bool = False) -> int:
    """Return an integer of 64 bits. Raises `CompileError` for a larger one."""
    found = -value if negative else int(value)
    if not _LEAST <= found <= _MOST:
        raise CompileError(source.error(at, "invalid int literal"))
    return found


def _integer(word: str) -> Number | Uint | str:
    digits = word.rstrip("uU")
    if len(digits) > 40:  # longer than any number of 64 bits; the parser reports the error
        digits = "9" * 40
    number = int(digits, 16 if digits.startswith("0x") else 10)
    if digits == word:
        return Number(number)
    return Uint(number) if number <= _MOST_UINT else Number(2**64)


def _double(source: Source, word: str, at: int) -> float:
    found = float(word)
    if found == float("inf"):
        raise CompileError(source.error(at, "invalid double literal"))
    return found


def _string(source: Source, start: str, at: int, position: int) -> tuple[str | bytes, int]:
    """Return the value of a literal that begins with a prefix and a quote, and its end."""
    prefix, quote = fold(start.rstrip("\"'")), start.lstrip("bBrR")
    raw, text = "r" in prefix, source.text
    end = position
    while not text.startswith(quote, end):
        if end >= len(text) or (len(quote) == 1 and text[end] in "\r\n"):
            raise CompileError(source.error(at, f"Syntax error: token recognition error at: '{text[at:end]}'"))
        end += 1 if raw or text[end] != "\\" else 2
    inner = text[position:end]
    return _unescaped(source, inner, at, raw=raw, is_bytes="b" in prefix), end + len(quote)


def _unescaped(source: Source, inner: str, at: int, *, raw: bool, is_bytes: bool) -> str | bytes:
    if raw:
        return inner.encode() if is_bytes else inner
    parts: list[bytes] = []
    position = 0
    for match in _ESCAPE.finditer(inner):
        parts.append(_checked(source, inner[position : match.start()], at))
        position = match.end()
        plain, octal, hexadecimal, short, long = match.groups()
        if plain is not None:
            parts.append(_PLAIN.get(plain, plain).encode())
        elif octal is not None or hexadecimal is not None:
            number = int(octal, 8) if octal is not None else int(hexadecimal, 16)
            parts.append(bytes([number]) if is_bytes else chr(number).encode())
        else:
            number = int(short or long, 16)
            if number > 0x10FFFF or 0xD800 <= number <= 0xDFFF or is_bytes:
                raise CompileError(source.error(at, "Syntax error: invalid unicode code point"))
            parts.append(chr(number).encode())
    parts.append(_checked(source, inner[position:], at))
    found = b"".join(parts)
    return found if is_bytes else found.decode()


def _checked(source: Source, text: str, at: int) -> bytes:
    if "\\" in text:
        raise CompileError(source.error(at, "Syntax error: unable to unescape string"))
    try:
        return text.encode()
    except UnicodeEncodeError:
        raise CompileError(source.error(at, "Syntax error: invalid unicode code point")) from None
