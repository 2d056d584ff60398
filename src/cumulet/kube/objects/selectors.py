"""Label and field selectors, with the syntax of apimachinery's `labels.Parse` and `fields.ParseSelector`."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping

from cumulet.kube.apimachinery.status import bad_request
from cumulet.kube.objects.label_syntax import LabelSelectorError, parse
from cumulet.kube.store import Stored

Predicate = Callable[[Stored], bool]

_LIMIT = 64 * 1024
_ESCAPED = re.compile(r"\\(.)", re.DOTALL)
_TERM = re.compile(r"((?:\\.|[^\\,])*)(?:,|$)", re.DOTALL)
_OPERATOR = re.compile(r"((?:\\.|[^\\=!]|!(?!=))*)(!=|==|=)(.*)", re.DOTALL)


def label_selector(text: str) -> Predicate | None:
    """Return a predicate, or `None` where the selector is empty. Raises `ApiError` 400."""
    if not text.strip():
        return None
    if len(text) > _LIMIT:
        raise bad_request("unable to parse requirement: the label selector is too long")
    try:
        requirements = parse(text)
    except LabelSelectorError as error:
        raise bad_request(str(error)) from None
    return lambda stored: all(requirement(stored.labels) for requirement in requirements)


def field_selector(
    text: str,
    supported: frozenset[str],
    paths: Mapping[str, tuple[str, ...]] | None = None,
    unsupported: str = "field label not supported: {}",
) -> Predicate | None:
    """Return a predicate on fields, or `None` where the selector is empty. Raises `ApiError` 400.

    A resource supports a few fields. The fields in `paths` are looked up in the whole object.
    """
    paths = paths or {}
    if not text.strip():
        return None
    if len(text) > _LIMIT:
        raise bad_request("the field selector is too long")
    wanted: list[tuple[str, str, bool]] = []
    for part in filter(None, _terms(text)):
        match = _OPERATOR.fullmatch(part)
        if match is None:
            raise bad_request(f"invalid selector: '{part}'; can't understand '{part}'")
        if match[1] not in supported and match[1] not in paths:
            raise bad_request(unsupported.format(match[1]))
        wanted.append((match[1], _plain(match[3]), match[2] != "!="))
    if any(field in paths for field, _, _ in wanted):
        return lambda stored: _all_fit(stored, wanted, paths)
    return lambda stored: all((stored.fields.get(field, "") == value) is equal for field, value, equal in wanted)


def _terms(text: str) -> Iterator[str]:
    """Split at the commas without a backslash in front."""
    return (match[1] for match in _TERM.finditer(text))


def _plain(value: str) -> str:
    for char in _ESCAPED.findall(value):
        if char not in "\\,=":
            raise bad_request(f"invalid field selector: invalid escape sequence: \\{char}")
    if re.search(r"(?<!\\)=", value):
        raise bad_request("invalid field selector: unescaped character in value: =")
    return _ESCAPED.sub(r"\1", value)


def _all_fit(stored: Stored, wanted: list[tuple[str, str, bool]], paths: Mapping[str, tuple[str, ...]]) -> bool:
    obj = stored.load()
    for field, value, equal in wanted:
        actual = _text_at(obj, paths[field]) if field in paths else stored.fields.get(field, "")
        if (actual == value) is not equal:
            return False
    return True


#: The values of absent fields, where they are not empty.
_ABSENT = {"hostNetwork": "false"}


def _text_at(obj: object, path: tuple[str, ...]) -> str:
    for name in path:
        obj = obj.get(name) if isinstance(obj, dict) else None
    if isinstance(obj, bool):
        return "true" if obj else "false"
    return _ABSENT.get(path[-1], "") if obj is None else str(obj)


class Selection:
    """The objects of a resource that a watch or a list selects."""

    def __init__(self, namespace: str, name: str, labels: str, fields: str, predicate: Predicate | None) -> None:
        #: Selections with the same parameters have the same key.
        self.key = (namespace, name, labels, fields)
        self.namespace = namespace
        self.is_whole = not name and predicate is None
        self._name = name
        self._predicate = predicate

    def has(self, stored: Stored) -> bool:
        """Return whether an object of the namespace is selected."""
        return (not self._name or stored.name == self._name) and (self._predicate is None or self._predicate(stored))
