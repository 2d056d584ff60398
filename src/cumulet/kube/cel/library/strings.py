"""The libraries of strings and regular expressions (cel-go's `ext/strings.go`, version 2; `cel/library/regex.go`)."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Sequence

from cumulet.kube.apimachinery import regexp
from cumulet.kube.cel.errors import CelError
from cumulet.kube.cel.functions import Library
from cumulet.kube.cel.library.standard import matching_cost
from cumulet.kube.cel.library.writing import written
from cumulet.kube.cel.sizes import MOST, REGEX, TRAVERSAL, Argument, Estimate, Size, clip, scaled, scan, scan_cost
from cumulet.kube.cel.values import Value, size_of, traversal

LIBRARY = Library()
_add = LIBRARY.add
_SPACE = " \t\n\v\f\r\x85\xa0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u2028\u2029\u202f\u205f\u3000"
_SURROGATE = re.compile("[\ud800-\udfff]")
_LOWER = str.maketrans({chr(65 + index): chr(97 + index) for index in range(26)})
_UPPER = str.maketrans({chr(97 + index): chr(65 + index) for index in range(26)})
_QUOTED = str.maketrans(
    {
        "\a": "\\a",
        "\b": "\\b",
        "\f": "\\f",
        "\n": "\\n",
        "\r": "\\r",
        "\t": "\\t",
        "\v": "\\v",
        "\\": "\\\\",
        '"': '\\"',
    }
)


def _out_of_range(index: int) -> CelError:
    return CelError(f"index out of range: {index}")


def _char_at(text: str, index: int) -> str:
    if not 0 <= index <= len(text):
        raise _out_of_range(index)
    return text[index : index + 1]


def _index_of(text: str, what: str, start: int = 0) -> int:
    if start < 0:
        raise _out_of_range(start)
    if not what:
        return min(start, len(text))
    return text.find(what, start) if start < len(text) else -1


def _last_index_of(text: str, what: str) -> int:
    return len(text) if not what else text.rfind(what)


def _last_index_before(text: str, what: str, start: int) -> int:
    if start < 0:
        raise _out_of_range(start)
    if not what:
        return min(start, len(text))
    return text.rfind(what, 0, start + len(what)) if start < len(text) else -1


def _split(text: str, by: str, limit: int = -1) -> list[Value]:
    if not limit:
        return []
    if not by:
        return list(text) if limit < 0 or limit >= len(text) else [*text[: limit - 1], text[limit - 1 :]]
    return [*text.split(by, limit - 1 if limit > 0 else -1)]


def _replace(text: str, old: str, new: str, count: int = -1) -> str:
    return text.replace(old, new, count if 0 <= count <= len(text) + 1 else -1)


def _substring(text: str, start: int, end: int | None = None) -> str:
    last = len(text) if end is None else end
    if end is not None and start > end:
        raise CelError(f"invalid substring range. start: {start}, end: {end}")
    for index in (start, last):
        if not 0 <= index <= len(text):
            raise _out_of_range(index)
    return text[start:last]


def _join(items: list[Value], by: str = "") -> str:
    texts = [item for item in items if isinstance(item, str)]
    if len(texts) != len(items):
        raise CelError("join: invalid input")
    return by.join(texts)


def _replaced_cost(text: str, old: str, new: str, count: int = -1) -> int:
    """Upstream counts the text alone. The replacement can be longer than the replaced part, so it counts too."""
    found = math.ceil(len(text) * 2 * TRAVERSAL)
    if len(new) > len(old):
        times = text.count(old)
        if count >= 0:
            times = min(times, count)
        found += math.ceil(times * (len(new) - len(old)) * TRAVERSAL)
    return found


def _replaced(target: Argument | None, args: Sequence[Argument]) -> Estimate | None:
    assert target is not None
    size, old, new = target.size, args[0].size, args[1].size
    most_times, most_kept = math.ceil(size.most / max(old.least, 1)), 0
    if not old.least:
        most_times, most_kept = clip(size.most + 1), size.most
    elif new.most <= old.least:
        most_times, most_kept = 0, size.most
    least_times, least_kept = math.ceil(size.least / max(old.most, 1)), 0
    if not old.most:
        least_times, least_kept = clip(size.least + 1), size.least
    elif old.most <= new.least:
        least_times, least_kept = 0, size.least
    made = Size(least_times, clip(most_times)).times(new).plus(Size(least_kept, most_kept))
    return scaled(size.most, 2 * TRAVERSAL), made


def _divided(target: Argument | None, args: Sequence[Argument]) -> Estimate:
    assert target is not None
    most = target.size.most
    if len(args) > 1 and type(args[1].constant) is int:
        most = args[1].constant if args[1].constant >= 0 else MOST
    return scaled(target.size.most, 2 * TRAVERSAL), Size(0, most)


def _joined(target: Argument | None, args: Sequence[Argument]) -> Estimate:
    assert target is not None
    size = target.size.times(target.item)
    if args:
        between = Size(max(target.size.least - 1, 0), max(target.size.most - 1, 0))
        size = size.plus(args[0].size.times(between))
    return scaled(size.most, TRAVERSAL), size


def _joined_cost(items: list[Value], by: str = "") -> int:
    length = sum(map(size_of, items)) + len(by) * max(len(items) - 1, 0)
    return math.ceil(length * 2 * TRAVERSAL)


def _written(target: Argument | None, args: Sequence[Argument]) -> Estimate:
    assert target is not None
    return scaled(target.size.most, TRAVERSAL), None


def _written_cost(text: str, values: list[Value]) -> int:
    """Upstream counts the format text alone. The inserted values count too."""
    return math.ceil(len(text) * TRAVERSAL) + traversal(values) // 2


def _found(target: Argument | None, args: Sequence[Argument]) -> Estimate:
    assert target is not None
    cost = scaled(target.size.most + 1, TRAVERSAL) * scaled(args[0].size.most, REGEX)
    return clip(cost), Size(0, target.size.most)


def _find(text: str, pattern: str) -> str:
    try:
        return next(regexp.find(pattern, text), "")
    except regexp.PatternError as error:
        raise CelError(f"Illegal regex: {error}") from None


def _find_all(text: str, pattern: str, limit: int = -1) -> list[Value]:
    try:
        found = regexp.find(pattern, text)
        return list(found if limit < 0 else itertools.islice(found, limit))
    except regexp.PatternError as error:
        raise CelError(f"Illegal regex: {error}") from None


def _quote(text: str) -> str:
    return f'"{_SURROGATE.sub(chr(0xFFFD), text).translate(_QUOTED)}"'


_add("(string).charAt(int) string", _char_at)
_add("(string).indexOf(string) int", _index_of, scan_cost(), scan())
_add("(string).indexOf(string, int) int", _index_of, scan_cost(), scan())
_add("(string).lastIndexOf(string) int", _last_index_of, scan_cost(), scan())
_add("(string).lastIndexOf(string, int) int", _last_index_before, scan_cost(), scan())
_add("(string).lowerAscii() string", lambda text: text.translate(_LOWER), scan_cost(), scan(keeps=True))
_add("(string).upperAscii() string", lambda text: text.translate(_UPPER), scan_cost(), scan(keeps=True))
_add("(string).replace(string, string) string", _replace, _replaced_cost, _replaced)
_add("(string).replace(string, string, int) string", _replace, _replaced_cost, _replaced)
_add("(string).split(string) list<string>", _split, scan_cost(2 * TRAVERSAL), _divided)
_add("(string).split(string, int) list<string>", _split, scan_cost(2 * TRAVERSAL), _divided)
_add("(string).substring(int) string", _substring, scan_cost(), scan(keeps=True))
_add("(string).substring(int, int) string", _substring, scan_cost(), scan(keeps=True))
_add("(string).trim() string", lambda text: text.strip(_SPACE), scan_cost(), scan(keeps=True))
_add("(string).format(list<dyn>) string", written, _written_cost, _written)
_add("strings.quote(string) string", _quote, scan_cost(), scan())
_add("(list<string>).join() string", _join, _joined_cost, _joined)
_add("(list<string>).join(string) string", _join, _joined_cost, _joined)
_add("(string).find(string) string", _find, matching_cost, _found)
_add("(string).findAll(string) list<string>", _find_all, matching_cost, _found)
_add("(string).findAll(string, int) list<string>", _find_all, matching_cost, _found)
