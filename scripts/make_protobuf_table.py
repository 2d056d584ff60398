"""Makes `src/cumulet/kube/codec/messages.json`: python scripts/make_protobuf_table.py FOLDER.

FOLDER has Kubernetes' `generated.proto` files somewhere below it, such as the staging repositories `api`, `apimachinery`,
`apiextensions-apiserver`, `kube-aggregator` and `metrics` at one version. Of each served group and version the
table gets every message: facts of the protocol, a line a field, `number name kind type`. Names are those of JSON, from the
published schemas; a struct that JSON has without a level of its own is `inline`.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import msgspec

from cumulet.kube.catalog.resources import RESOURCES
from cumulet.kube.schema.definitions import named

_TARGET = Path(__file__).parents[1] / "src" / "cumulet" / "kube" / "codec" / "messages.json"
_SCALARS = ("string", "bool", "bytes", "int32", "int64", "uint32", "uint64", "double")
#: What every group uses, beside those of the table of resources.
_COMMON = (
    "meta.v1",
    "api.resource",
    "pkg.runtime",
    "util.intstr",
    "authentication.v1",
    "policy.v1",
    "autoscaling.v1",
)
_PACKAGE = re.compile(r"^package ([\w.]+);", re.MULTILINE)
_MESSAGE = re.compile(r"^message (\w+) \{(.*?)^\}", re.MULTILINE | re.DOTALL)
_FIELD = re.compile(
    r"^\s*(optional|repeated|map<string, ([\w.]+)>) ?([\w.]+)? (\w+) = (\d+)(?: \[[^\]]*\])?;", re.MULTILINE
)


class Message(NamedTuple):
    """A message by its full name, and the text between its braces."""

    package: str
    name: str
    body: str


def messages(folder: Path) -> Iterator[Message]:
    """Every message of the files below a folder."""
    for file in sorted(folder.rglob("generated.proto")):
        text = file.read_text()
        package = _PACKAGE.search(text)
        assert package is not None, file
        for found in _MESSAGE.finditer(text):
            yield Message(package[1], found[1], found[2])


def short(package: str) -> str:
    """The last two parts of a package: `core.v1`, `meta.v1`, `util.intstr`; the table calls the runtime's so."""
    return {"pkg.runtime": "runtime"}.get(name := ".".join(package.split(".")[-2:]), name)


def properties(message: Message) -> dict[str, str] | None:
    """The names that JSON has for the fields of a message, by those of protobuf; `None` where no schema is published."""
    package = message.package.removeprefix("k8s.io.").replace("_", "-")
    definition = named(f"io.k8s.{package}.{message.name}")
    if definition is None or not definition.fields:
        return None
    return {_plain(name): name for name in definition.fields}


def _plain(name: str) -> str:
    """What the two names of a field share: `$ref` and `ref`, `x-kubernetes-map-type` and `xKubernetesMapType`, `name` and `Name`."""
    return name.removeprefix("$").replace("-", "").lower()


def rows(message: Message) -> list[str]:
    """The fields of a message."""
    known = properties(message)
    found = []
    for label, of_map, of_field, name, number in _FIELD.findall(message.body):
        type_ = of_map or of_field
        full = type_ if type_ in _SCALARS else _named(message, type_)
        kind = {"optional": "one", "repeated": "list"}.get(label, "map")
        json = name
        if known is not None and _plain(name) not in known:
            if kind == "one" and full not in _SCALARS:
                kind = "inline"
        elif known is not None:
            json = known[_plain(name)]
        found.append((int(number), f"{number} {json} {kind} {full}"))
    return [row for _, row in sorted(found)]


def _named(message: Message, type_: str) -> str:
    package, _, name = type_.lstrip(".").rpartition(".")
    return f"{short(package or message.package)}.{name}"


def main(folder: Path) -> None:
    """Write the table."""
    groups = {(row.group or "core", row.version) for row in RESOURCES}
    wanted = {f"{group.partition('.')[0]}.{version}" for group, version in groups} | set(_COMMON)
    table = {
        f"{short(message.package)}.{message.name}": rows(message)
        for message in messages(folder)
        if ".".join(message.package.split(".")[-2:]) in wanted and "testapigroup" not in message.package
    }
    lines = ",\n".join(f'"{name}":{msgspec.json.encode(fields).decode()}' for name, fields in sorted(table.items()))
    _TARGET.write_text(f"{{\n{lines}\n}}\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
