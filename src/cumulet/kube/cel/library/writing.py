"""The output of `format` (cel-go's `ext/formatting.go`)."""

from __future__ import annotations

import math

from cumulet.common.ascii import raised
from cumulet.kube.cel.errors import CelError
from cumulet.kube.cel.library.numbers import shortest
from cumulet.kube.cel.times import Duration, Timestamp
from cumulet.kube.cel.values import TypeValue, Value, type_of

#: The most digits after the point. Each takes memory.
_PRECISION = 1000
_SUPERSCRIPT = str.maketrans("0123456789-", "⁰¹²³⁴⁵⁶⁷⁸⁹⁻")
_INFINITE = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


def written(text: str, values: list[Value]) -> str:
    """Return a text with values inserted. Raises `CelError` for too few values, or for one of the wrong type."""
    parts: list[str] = []
    rest = iter(values)
    position = 0
    while (start := text.find("%", position)) >= 0:
        parts.append(text[position:start])
        position = start + 1
        if text[position : position + 1] == "%":
            parts.append("%")
            position += 1
            continue
        precision: int | None = None
        if text[position : position + 1] == ".":
            end = position + 1
            while text[end : end + 1] in tuple("0123456789"):
                end += 1
            digits = text[position + 1 : end]
            if not digits or len(digits) > 4 or int(digits) > _PRECISION:
                raise CelError(f"error while parsing precision: it must be from 0 to {_PRECISION}")
            precision, position = int(digits), end
        clause = text[position : position + 1]
        position += 1
        try:
            value = next(rest)
        except StopIteration:
            raise CelError("index out of bounds: more clauses than values") from None
        parts.append(_clause(clause, value, precision))
    parts.append(text[position:])
    return "".join(parts)


def _clause(clause: str, value: Value, precision: int | None) -> str:
    match clause:
        case "s":
            return _text(value)
        case "d":
            if isinstance(value, int) and not isinstance(value, bool):
                return str(int(value))
            raise _wrong("decimal clause can only be used on integers", value)
        case "f" | "e":
            return _number(clause, value, 6 if precision is None else precision)
        case "b" | "o":
            if isinstance(value, int) and (clause == "b" or not isinstance(value, bool)):
                return f"{int(value):{clause}}"
            name = "binary" if clause == "b" else "octal"
            raise _wrong(f"only integers{' and bools' if clause == 'b' else ''} can be formatted as {name}", value)
        case "x" | "X":
            if isinstance(value, int) and not isinstance(value, bool):
                return f"{int(value):{clause}}"
            if isinstance(value, str | bytes):
                shown = (value.encode() if isinstance(value, str) else value).hex()
                return raised(shown) if clause == "X" else shown
            raise _wrong("only integers, byte buffers, and strings can be formatted as hex", value)
    raise CelError(f'could not parse formatting clause: unrecognized formatting clause "{clause}"')


def _wrong(why: str, value: Value) -> CelError:
    return CelError(f"error during formatting: {why}, was given {type_of(value).name}")


def _number(clause: str, value: Value, precision: int) -> str:
    number = _INFINITE.get(value) if isinstance(value, str) else value
    if not isinstance(number, float):
        kind = "fixed-point" if clause == "f" else "scientific"
        raise _wrong(f"{kind} clause can only be used on doubles", value)
    if not math.isfinite(number):
        return "NaN" if math.isnan(number) else ("∞" if number > 0 else "-∞")
    if clause == "f":
        return f"{number:,.{precision}f}"
    digits, _, exponent = f"{number:.{precision}e}".partition("e")
    shown = f"{int(exponent):03d}" if exponent.startswith("-") else f"{int(exponent):02d}"
    return f"{digits}\u00d710{shown.translate(_SUPERSCRIPT)}"


def _text(value: Value) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return "true" if value else "false"
        case str():
            return value
        case bytes():
            return value.decode(errors="replace")
        case float():
            return shortest(value)
        case int():
            return str(int(value))
        case list():
            return f"[{', '.join(_within(item) for item in value)}]"
        case dict():
            entries = sorted((_within(key), _within(item)) for key, item in value.items())
            return f"{{{', '.join(f'{key}:{item}' for key, item in entries)}}}"
        case Timestamp() | Duration():
            return str(value)
        case TypeValue():
            return value.name
    raise _wrong(
        "string clause can only be used on strings, bools, bytes, ints, doubles, maps, lists, types, durations, and timestamps",
        value,
    )


def _within(value: Value) -> str:
    """Return a value inside a list or a map, in the language's notation."""
    match value:
        case str():
            return _quoted(value)
        case bytes():
            return f"b{_quoted(value.decode(errors='replace'))}"
        case float():
            return f"{value:.6f}" if math.isfinite(value) else _quoted(str(value))
        case Timestamp():
            return f'timestamp("{value}")'
        case Duration():
            return f'duration("{value}")'
    return _text(value)


def _quoted(text: str) -> str:
    escaped = (
        text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n").replace("\t", "\\t").replace("\r", "\\r")
    )
    return f'"{escaped}"'
