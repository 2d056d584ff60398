"""Makes `src/cumulet/kube/schema/declarations.json`: python scripts/make_declarations.py FOLDER.

FOLDER holds Kubernetes' staging repositories `api`, `apimachinery` and `apiextensions-apiserver` at one version. The table
has the facts that the published schemas lack, from the declarations of the Go types: the fields that are omitted when they are
empty, the zero values of those that are always written, the names of their types, and the embedded structs.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from cumulet.kube.catalog.resources import RESOURCES
from cumulet.kube.schema.definitions import definition, named

TARGET = Path(__file__).parents[1] / "src" / "cumulet" / "kube" / "schema" / "declarations.json"

#: The packages whose types get an entry.
_PACKAGES = (
    *(
        f"k8s.io/api/{group}"
        for group in (
            "admissionregistration/v1",
            "apps/v1",
            "authentication/v1",
            "authorization/v1",
            "autoscaling/v1",
            "autoscaling/v2",
            "batch/v1",
            "certificates/v1",
            "coordination/v1",
            "core/v1",
            "discovery/v1",
            "events/v1",
            "flowcontrol/v1",
            "networking/v1",
            "node/v1",
            "policy/v1",
            "rbac/v1",
            "resource/v1",
            "scheduling/v1",
            "storage/v1",
        )
    ),
    "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1",
    "k8s.io/apimachinery/pkg/apis/meta/v1",
)

#: The kinds of requests to subresources and of options, beside those of the table of resources.
_REQUESTS = (
    "io.k8s.api.authentication.v1.TokenRequest",
    "io.k8s.api.autoscaling.v1.Scale",
    "io.k8s.api.policy.v1.Eviction",
    "io.k8s.apimachinery.pkg.apis.meta.v1.DeleteOptions",
)

#: Fields of features that are off by default, which the Go types do not state.
_DISABLED = {
    "io.k8s.api.core.v1.Lifecycle": {"stopSignal": "ContainerStopSignals"},
    "io.k8s.api.core.v1.VolumeProjection": {
        "clusterTrustBundle": "ClusterTrustBundleProjection",
        "podCertificate": "PodCertificateRequest",
    },
}

_RAW = "k8s.io/apimachinery/pkg/runtime.RawExtension"
#: The zero values of structs that have their own encoding.
_ZERO = {
    "k8s.io/apimachinery/pkg/apis/meta/v1.Time": None,
    "k8s.io/apimachinery/pkg/apis/meta/v1.MicroTime": None,
    "k8s.io/apimachinery/pkg/api/resource.Quantity": "0",
    "k8s.io/apimachinery/pkg/util/intstr.IntOrString": 0,
    _RAW: None,
}

_SCALARS = {"string": "", "bool": False, "float64": 0} | dict.fromkeys(
    ("int", "int32", "int64", "uint32", "uint64"), 0
)

_SKIPPED = re.compile(r"_test\.go$|^zz_|generated")
_IMPORT = re.compile(r'^\s*(?:import\s+)?(\w+)?\s*"([^"]+)"$', re.MULTILINE)
_STRUCT = re.compile(r"^type (\w+) struct ?\{(?:\}|\n(.*?)^\})", re.MULTILINE | re.DOTALL)
_NAMED = re.compile(r"^type (\w+) (?!struct\b|interface\b|func\b)(=? ?\S+)", re.MULTILINE)
_FIELD = re.compile(r'^\t(?:(\w+)\s+)?([\w.\[\]*]+)\s+`[^`]*json:"([^"]*)"', re.MULTILINE)


class Field(NamedTuple):
    """A field of a Go struct: its type as written there, its name in JSON, the options of its tag, and its structs."""

    type: str
    json: str
    options: frozenset[str]
    embedded: str
    package: Package


class Package:
    """A Go package: its structs and its other named types."""

    def __init__(self, sources: Sources, path: str) -> None:
        self._sources = sources
        self.path = path
        self.name = path.rpartition("/")[2]
        self.structs: dict[str, str] = {}
        self.named: dict[str, str] = {}
        self._imports: dict[str, str] = {}
        for file in sources.files(path):
            text = re.sub(r"^\t*//.*\n", "", file.read_text(), flags=re.MULTILINE)
            self.structs |= {match[1]: match[2] or "" for match in _STRUCT.finditer(text)}
            self.named |= {match[1]: match[2].removeprefix("= ") for match in _NAMED.finditer(text)}
            for alias, imported in _IMPORT.findall(text):
                self._imports[alias or imported.rpartition("/")[2]] = imported

    def resolve(self, name: str) -> tuple[Package, str]:
        """The package and the name of a type, as this package refers to it."""
        alias, _, plain = name.rpartition(".")
        return (self._sources.package(self._imports[alias]), plain) if alias else (self, name)

    def fields(self, struct: str, embedded: str = "") -> Iterator[Field]:
        """The fields of a struct and of those that it embeds, in their order."""
        for _, type_, tag in _FIELD.findall(self.structs[struct]):
            name, *options = tag.split(",")
            if "inline" in options:
                package, inner = self.resolve(type_.lstrip("*"))
                if inner != "TypeMeta":
                    yield from package.fields(inner, f"{embedded}.{inner}".lstrip("."))
            elif name and name != "-":
                yield Field(type_, name, frozenset(options), embedded, self)

    def kind(self, type_: str) -> str:
        """`pointer`, `list`, `map`, `struct`, or the name of a scalar."""
        if type_.startswith("*"):
            return "pointer"
        if type_.startswith("["):
            return "list"
        if type_.startswith("map["):
            return "map"
        if type_ in _SCALARS:
            return type_
        package, name = self.resolve(type_)
        return "struct" if name in package.structs else package.kind(package.named[name])

    def shown(self, type_: str) -> str:
        """A type as Go's reflection names it: `[]v1.Container`, `map[string]string`."""
        if match := re.fullmatch(r"(\[\]|\*|map\[([\w.]+)\])(.+)", type_):
            prefix = f"map[{self.shown(match[2])}]" if match[2] else match[1]
            return f"{prefix}{self.shown(match[3])}"
        if type_ == "byte":
            return "uint8"
        if type_ in _SCALARS or type_ == "interface{}":
            return type_
        package, name = self.resolve(type_)
        return f"{package.name}.{name}"


class Sources:
    """The packages below a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._packages: dict[str, Package] = {}

    def package(self, path: str) -> Package:
        """A package by its import path, such as `k8s.io/api/core/v1`."""
        if path not in self._packages:
            self._packages[path] = Package(self, path)
        return self._packages[path]

    def files(self, path: str) -> list[Path]:
        """The sources of a package, without tests and generated files."""
        folder = self._folder / path.removeprefix("k8s.io/")
        return sorted(file for file in folder.glob("*.go") if not _SKIPPED.search(file.name))


def declaration(name: str, package: Package, struct: str) -> dict[str, Any]:
    """The entry of one type."""
    omitted: list[str] = []
    written: dict[str, Any] = {}
    types: dict[str, str] = {}
    embedded: dict[str, str] = {}
    for field in package.fields(struct):
        kind = field.package.kind(field.type)
        plain = field.type.removeprefix("*")
        plain_kind = field.package.kind(plain)
        if kind == "struct":
            # Go ignores `omitempty` of structs. A raw extension that has it is required by validation, so never empty.
            raw = "omitempty" in field.options and _full(field) == _RAW
            if "omitzero" not in field.options and not raw:
                written[field.json] = _zero(field, kind)
        elif "omitempty" not in field.options:
            written[field.json] = _zero(field, kind)
        elif kind != "pointer":
            omitted.append(field.json)
        if plain_kind != "struct" and plain not in _SCALARS:
            types[field.json] = field.package.shown(plain)
        if field.embedded:
            embedded[field.json] = field.embedded
    parts = {
        "omitted": omitted,
        "written": written,
        "types": types,
        "embedded": embedded,
        "disabled": _DISABLED.get(name),
    }
    return {name: part for name, part in parts.items() if part}


def _full(field: Field) -> str:
    """The type of a field with the import path of its package."""
    package, name = field.package.resolve(field.type)
    return f"{package.path}.{name}"


def _zero(field: Field, kind: str) -> Any:
    """The value that Go writes for an empty field."""
    return _ZERO.get(_full(field), {}) if kind == "struct" else _SCALARS.get(kind)


def reached() -> set[str]:
    """The full names of the served kinds and of everything that they are made of."""
    waiting = list(_REQUESTS)
    for row in RESOURCES:
        kind = definition(row.group, row.version, row.kind)
        if kind is not None:
            waiting.append(kind.name)
    names: set[str] = set()
    while waiting:
        name = waiting.pop()
        if name not in names:
            names.add(name)
            reference = named(name)
            if reference is not None:
                waiting += [field.ref for field in reference.fields.values() if field.ref]
    return names


def source(folder: Path) -> str:
    """The text of the table."""
    sources = Sources(folder)
    kinds = reached()
    table: dict[str, dict[str, Any]] = {}
    for path in _PACKAGES:
        package = sources.package(path)
        for struct in package.structs:
            name = f"io.k8s.{path.removeprefix('k8s.io/').replace('/', '.')}.{struct}"
            if name in kinds and (entry := declaration(name, package, struct)):
                table[name] = entry
    lines = ",\n".join(f'"{name}":{msgspec.json.encode(entry).decode()}' for name, entry in sorted(table.items()))
    return f"{{\n{lines}\n}}\n"


if __name__ == "__main__":
    TARGET.write_text(source(Path(sys.argv[1])))
