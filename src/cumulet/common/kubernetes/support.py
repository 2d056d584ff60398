"""Which fields of an object are supported: a table by schema, and the check of an object against it.

A room declares a `Kind` for each type of the published schemas that it reads. Each field is in one column:

- `honoured`: it has the effect that Kubernetes documents.
- `stored`: it is kept and shown, and read by someone else or by nobody; the note says by whom.
- `refused`: an object that sets it is refused; the note says what to do instead.

The documentation is generated from the same table.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

Column = Literal["honoured", "stored", "refused"]

#: Values that equal an absent field.
_UNSET: tuple[object, ...] = (None, False, "", [])
_LONGEST_VALUE = 64


@dataclass(frozen=True)
class Entry:
    """How one field is treated.

    `only` are the values that are honoured; in a list each element, in a map each key, has to be one of them. `unless` are the
    values of a refused field that have no effect. `instead` says what to do about a refusal. `kind` has the fields below.
    """

    column: Column
    note: str = ""
    kind: Kind | None = None
    only: tuple[str | bool, ...] | None = None
    unless: tuple[object, ...] = ()
    instead: str = ""


@dataclass(frozen=True)
class Kind:
    """The fields of a type. `schema` is its name in the published schemas, `name` that in the documentation."""

    schema: str
    fields: Mapping[str, Entry]
    name: str = ""
    title: str = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "title", self.name or self.schema)


class Refusal(NamedTuple):
    """A field that an object sets and that is not supported; `path` is written as in Kubernetes' validation errors."""

    path: str
    value: str
    instead: str

    def __str__(self) -> str:
        return f"{self.path}{f' {self.value}' if self.value else ''} is not supported: {self.instead}"


def honoured(
    note: str = "", kind: Kind | None = None, *, only: tuple[str | bool, ...] | None = None, instead: str = ""
) -> Entry:
    """A field with effect. With `only`, other values are refused and `instead` says what to do."""
    return Entry("honoured", note, kind, only=only, instead=instead)


def stored(note: str, kind: Kind | None = None) -> Entry:
    """A field that is kept and shown; `note` says who reads it."""
    return Entry("stored", note, kind)


def refused(instead: str, *, unless: tuple[object, ...] = ()) -> Entry:
    """A field that an object must not set; `instead` says what to do. False, "", [] and `unless` are as good as absent."""
    return Entry("refused", unless=unless, instead=instead)


def refusals(value: object, kind: Kind, path: str) -> Iterator[Refusal]:
    """Yield what of an object is not supported, in the order of its fields."""
    if not isinstance(value, Mapping):
        return
    for name, part in value.items():
        entry = kind.fields.get(name)
        where = f"{path}.{name}" if path else name
        if part is None:
            continue
        if entry is None:
            yield Refusal(where, "", "this version does not know the field; remove it")
        elif entry.column == "refused":
            if not any(type(part) is type(unset) and part == unset for unset in (*_UNSET, *entry.unless)):
                yield Refusal(where, _shown(part), entry.instead)
        else:
            yield from _below(part, entry, where)


def _below(part: object, entry: Entry, where: str) -> Iterator[Refusal]:
    """Yield what is not supported of a field that is."""
    if entry.only is not None:
        yield from _others(part, entry.only, entry.instead, where)
    if entry.kind is None:
        return
    if isinstance(part, list):
        for number, element in enumerate(part):
            yield from refusals(element, entry.kind, f"{where}[{number}]")
    else:
        yield from refusals(part, entry.kind, where)


def _others(part: object, only: Sequence[str | bool], instead: str, where: str) -> Iterator[Refusal]:
    """Yield the values other than those of `only`; an empty text is as good as an absent field."""
    if isinstance(part, list):
        values = [(f"{where}[{number}]", element) for number, element in enumerate(part)]
    elif isinstance(part, Mapping):
        values = [(f"{where}[{key}]", key) for key in part]
    else:
        values = [(where, part)]
    for place, value in values:
        if value != "" and value not in only:
            yield Refusal(place, "" if isinstance(part, Mapping) else _shown(value), instead)


def _shown(value: object) -> str:
    """Return a plain value for a message, and nothing for objects, lists and `True`."""
    if isinstance(value, str):
        return f'"{value}"' if len(value) <= _LONGEST_VALUE else f'"{value[:_LONGEST_VALUE]}…"'
    if isinstance(value, int) and value is not True:
        return "false" if value is False else str(value)
    return ""
