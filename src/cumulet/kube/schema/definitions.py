"""The published schemas (OpenAPI, Kubernetes 1.36) as a graph of fields, built for each kind on first use.

They come from the package `kubernetes-validate`, which includes the merge keys of patches. `declarations.json` adds the
facts that the schemas lack:

- `omitted`: fields that are left out when they are empty
- `written`: fields that are always written, with their empty values
- `disabled`: fields that are accepted and dropped, with the feature gates that are off by default
- `types` and `embedded`: the Go names of types and of embedded structs in upstream's messages
"""

from __future__ import annotations

import functools
from importlib import metadata, resources
from pathlib import Path

import msgspec

from cumulet.common.kubernetes.objects import Object
from cumulet.kube.apimachinery.json_types import Json

VERSION = "1.36.0"

_PREFIX = "#/$defs/"
INT_OR_STRING = "io.k8s.apimachinery.pkg.util.intstr.IntOrString"
QUANTITY = "io.k8s.apimachinery.pkg.api.resource.Quantity"


class Field:
    """One field: its JSON type, the type of its parts, and how it merges.

    `type` is string, integer, number, boolean, object, array, or any. `item` is the definition of an object, of a list's
    elements or of a map's values. It is `None` for scalars, whose own type is `item_type`. `exact` is the Python type of a
    value that needs no further check. `go_type` and `embedded` are the type's name in messages and the embedded structs
    that contain it.
    """

    __slots__ = (
        "__dict__",
        "embedded",
        "exact",
        "format",
        "go_type",
        "item_type",
        "list_type",
        "map_keys",
        "map_type",
        "merge_key",
        "patch_strategy",
        "ref",
        "type",
    )

    def __init__(self, schema: Object, go_type: str = "", embedded: str = "") -> None:
        types = schema.get("type", "any")
        self.type: str = types[0] if isinstance(types, list) else types
        self.format: str = schema.get("format", "")
        self.ref = ""
        self.embedded = embedded
        self.item_type = ""
        inner = schema
        if self.type == "array":
            inner = schema.get("items") or {}
        elif isinstance(schema.get("additionalProperties"), dict):
            self.type = "map"
            inner = schema["additionalProperties"]
        if "$ref" in inner:
            self.ref = inner["$ref"].removeprefix(_PREFIX)
        if self.type in ("array", "map"):
            types = inner.get("type", "any")
            self.item_type = "object" if self.ref else types[0] if isinstance(types, list) else types
        elif self.ref:
            self.type = "any" if self.ref in (INT_OR_STRING, QUANTITY) else "object"
        self.merge_key: str = schema.get("x-kubernetes-patch-merge-key", "")
        self.patch_strategy: str = schema.get("x-kubernetes-patch-strategy", "")
        self.list_type: str = schema.get("x-kubernetes-list-type", "")
        self.map_keys: list[str] = schema.get("x-kubernetes-list-map-keys", [])
        self.map_type: str = schema.get("x-kubernetes-map-type", "")

        self.go_type = go_type or self._go_type()
        self.exact: type | None = None
        if not self.ref and self.format != "byte":
            self.exact = {"string": str, "boolean": bool}.get(self.type)

    def _go_type(self) -> str:
        if self.ref:
            parts = self.ref.rsplit(".", 2)
            return f"{parts[-2]}.{parts[-1]}"
        if self.type == "integer":
            return "int64" if self.format == "int64" else "int32"
        return {"boolean": "bool", "number": "float64"}.get(self.type, self.type)

    @functools.cached_property
    def item(self) -> Definition | None:
        """The definition of the field's object, element or map value. `None` where that has no fields of its own."""
        found = named(self.ref) if self.ref else None
        return found if found is not None and found.fields else None


class Definition:
    """An object: its fields by name."""

    __slots__ = ("disabled", "fields", "format", "map_type", "name", "omitted", "required", "type", "written")

    def __init__(self, name: str, schema: Object) -> None:
        self.name = name
        types = schema.get("type", "any")
        self.type: str = types[0] if isinstance(types, list) else types
        self.format: str = schema.get("format", "")
        self.map_type: str = schema.get("x-kubernetes-map-type", "")
        self.required: list[str] = schema.get("required", [])
        declared = _declarations().get(name)
        facts: Object = {} if declared is None else msgspec.json.decode(declared)
        types, embedded = facts.get("types", {}), facts.get("embedded", {})
        self.fields = {
            key: Field(value, types.get(key, ""), embedded.get(key, ""))
            for key, value in (schema.get("properties") or {}).items()
        }
        #: Fields that are left out when empty, fields that are dropped, and fields that are always written, with their value.
        self.omitted: frozenset[str] = frozenset(facts.get("omitted", ()))
        self.disabled: dict[str, str] = facts.get("disabled", {})
        self.written: dict[str, Json] = facts.get("written", {})


@functools.cache
def raw_definitions() -> dict[str, msgspec.Raw]:
    """Return every definition by name, not yet decoded."""
    # `resources.files` would import the package, and with it a validator that takes a third of the room's start.
    folder = metadata.distribution("kubernetes-validate").locate_file("kubernetes_validate/kubernetes-json-schema")
    file = Path(str(folder)) / f"v{VERSION}-local" / "_definitions.json"
    document = msgspec.json.decode(file.read_bytes(), type=dict[str, msgspec.Raw])
    return msgspec.json.decode(document["$defs"], type=dict[str, msgspec.Raw])


@functools.cache
def _declarations() -> dict[str, msgspec.Raw]:
    file = resources.files("cumulet.kube.schema").joinpath("declarations.json")
    return msgspec.json.decode(file.read_bytes(), type=dict[str, msgspec.Raw])


@functools.cache
def named(name: str) -> Definition | None:
    """Return a definition by its name, such as `io.k8s.api.core.v1.Pod`."""
    raw = raw_definitions().get(name)
    return None if raw is None else Definition(name, msgspec.json.decode(raw))


@functools.cache
def definition(group: str, version: str, kind: str) -> Definition | None:
    """Return the definition of a kind, or `None` where it is not published."""
    package = group.partition(".")[0] if group else "core"
    if group == "apiextensions.k8s.io":
        return named(f"io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.{version}.{kind}")
    if group == "apiregistration.k8s.io":
        return named(f"io.k8s.kube-aggregator.pkg.apis.apiregistration.{version}.{kind}")
    return named(f"io.k8s.api.{package}.{version}.{kind}") or named(
        f"io.k8s.apimachinery.pkg.apis.meta.{version}.{kind}"
    )


def empty(of: Definition) -> Object:
    """Return the fields that are written for an object with nothing set."""
    made: Object = {}
    for name, value in of.written.items():
        item = of.fields[name].item
        made[name] = value if value != {} else empty(item) if item is not None else {}
    return made
