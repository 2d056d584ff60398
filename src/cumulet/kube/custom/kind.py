"""One version of a custom kind: its schema, columns and sub-resources."""

from __future__ import annotations

import functools
import logging
from datetime import datetime
from typing import NamedTuple

import msgspec

from cumulet.common.kubernetes.objects import Object
from cumulet.kube.apimachinery.duration import age
from cumulet.kube.apimachinery.json_types import Json
from cumulet.kube.apimachinery.status import Cause
from cumulet.kube.cel.environment import Budget
from cumulet.kube.custom import structural_schema
from cumulet.kube.custom.jsonpath import JsonPath, JsonPathError
from cumulet.kube.custom.validation_rules import Rules, has_rules
from cumulet.kube.fields.shape import Shape, of_structural, shape_of
from cumulet.kube.schema.definitions import definition
from cumulet.kube.store import Stored

log = logging.getLogger(__name__)


_CAUSES = 100
#: The most revisions that are cached.
_FILLED = 100_000
_AGE = {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"}
_NAME = {"name": "Name", "type": "string", "format": "name", "description": "Name", "priority": 0}


class Scale(NamedTuple):
    """The paths of the fields that `scale` shows: desired replicas, current replicas, and the selector if there is one."""

    spec: tuple[str, ...]
    status: tuple[str, ...]
    selector: tuple[str, ...]


class Custom:
    """The part of a custom resource's catalog entry that comes from its definition."""

    def __init__(self, version: Object, group: str, storage: Custom | None, webhook: Object | None) -> None:
        self.api_version = f"{group}/{version['name']}"
        #: The storage version, and the converter between versions where there is one.
        self.storage = storage or self
        self.webhook = webhook
        self._start = f'{{"apiVersion":"{self.api_version}",'.encode()
        schema = (version.get("schema") or {}).get("openAPIV3Schema") or {
            "x-kubernetes-preserve-unknown-fields": True
        }
        self.schema: Object = schema
        self._has_rules = has_rules(schema)
        self._has_defaults = structural_schema.has_defaults(schema)
        #: Revisions of objects that have all defaults.
        self._filled: set[int] = set()
        self.shape: Shape = of_structural(schema, top=True)
        metadata = definition("", "v1", "ObjectMeta")
        assert metadata is not None
        self.shape.fields["metadata"] = shape_of(metadata)
        self.warning: str = version.get("deprecationWarning", "") if version.get("deprecated") else ""
        subresources = version.get("subresources") or {}
        #: The fields that field selectors can use, with their paths.
        self.fields = {
            item["jsonPath"].lstrip("."): _path(item["jsonPath"]) for item in version.get("selectableFields") or ()
        }
        self.has_status = "status" in subresources
        scale = subresources.get("scale")
        self.scale = (
            Scale(
                *(
                    _path(scale.get(key, ""))
                    for key in ("specReplicasPath", "statusReplicasPath", "labelSelectorPath")
                )
            )
            if scale
            else None
        )
        try:
            self._columns = _columns(version.get("additionalPrinterColumns") or [_AGE])
        except JsonPathError as error:
            log.warning("ignoring the printer columns of %s: a path %s", self.api_version, error)
            self._columns = _columns([_AGE])

    def is_form_of(self, stored: Stored) -> bool:
        """Whether an object is stored in this version."""
        return stored.body.startswith(self._start)

    def fields_of(self, stored: Stored) -> bytes:
        """Return the JSON of an object in this version, from its first own field on."""
        return stored.body[len(self._start) :]

    @property
    def subresources(self) -> tuple[str, ...]:
        """The sub-resources that the definition enables."""
        return (("status",) if self.has_status else ()) + (("scale",) if self.scale else ())

    def prune(self, obj: Object) -> list[str]:
        """Remove the fields that the schema lacks, in place, and return the strict decoding messages."""
        return structural_schema.prune(obj, self.schema)

    def set_defaults(self, obj: Object) -> bool:
        """Set the schema's defaults, in place. Returns whether any was set."""
        return self._has_defaults and structural_schema.set_defaults(obj, self.schema)

    def filled(self, stored: Stored) -> Stored:
        """Return an object in this version, with the schema's current defaults."""
        if not self._has_defaults or stored.revision in self._filled:
            return stored
        obj = stored.load()
        if not self.set_defaults(obj):
            if len(self._filled) >= _FILLED:
                self._filled.clear()
            self._filled.add(stored.revision)
            return stored
        api_version = obj.pop("apiVersion", self.api_version)
        return stored._replace(body=msgspec.json.encode({"apiVersion": api_version, **obj}))

    def validate(self, obj: Object, old: Object | None = None) -> list[Cause]:
        """Return the violations of the schema, without those of its rules."""
        return structural_schema.validate(obj, self.schema, old)

    @property
    def has_rules(self) -> bool:
        """Whether the schema has rules."""
        return self._has_rules

    @functools.cached_property
    def _rules(self) -> Rules:
        return Rules(self.schema)

    def broken(self, obj: Object, old: Object | None, budget: Budget) -> tuple[list[Cause], list[str]]:
        """Return the violations of the rules by an object, or by its update, and the warnings."""
        causes, warnings = self._rules.broken(obj, old, budget)
        return causes[:_CAUSES], warnings[:_CAUSES]

    def prepare_for_create(self, obj: Object) -> None:
        """Set the first generation, and drop the status where `status` is a sub-resource."""
        if self.has_status:
            obj.pop("status", None)
        obj["metadata"]["generation"] = 1

    def prepare_for_update(self, obj: Object, old: Object, subresource: str) -> None:
        """Restore the fields that this kind of update must not change, and count a change, in place."""
        if subresource == "status":
            status = obj.get("status")
            managed = obj["metadata"].get("managedFields")
            version = obj["metadata"].get("resourceVersion")
            obj.clear()
            obj.update(old | {"metadata": dict(old["metadata"])})
            for key, value in (("managedFields", managed), ("resourceVersion", version)):
                if value is not None:
                    obj["metadata"][key] = value
            obj.pop("status", None)
            if status is not None:
                obj["status"] = status
            return
        ignored = {"metadata", "status"} if self.has_status else {"metadata"}
        if self.has_status:
            obj.pop("status", None)
            if "status" in old:
                obj["status"] = old["status"]
        changed = {key: obj[key] for key in obj.keys() - ignored} != {key: old[key] for key in old.keys() - ignored}
        obj["metadata"]["generation"] = old["metadata"].get("generation", 1) + changed

    def columns(self) -> list[Object]:
        """The column definitions of a table."""
        return [_NAME] + [
            {
                "name": column["name"],
                "type": column["type"],
                "format": column.get("format", ""),
                "description": column.get("description", ""),
                "priority": column.get("priority", 0),
            }
            for column, _ in self._columns
        ]

    def cells(self, obj: Object, now: datetime) -> list[Json]:
        """Return the cells of one object."""
        return [
            obj["metadata"]["name"],
            *(_cell(column["type"], path.find(obj), now) for column, path in self._columns),
        ]


def _columns(definitions: list[Object]) -> list[tuple[Object, JsonPath]]:
    """Return columns with the paths of their values. Raises `JsonPathError`."""
    return [(column, JsonPath(column["jsonPath"])) for column in definitions]


def _path(text: str) -> tuple[str, ...]:
    return tuple(part for part in text.split(".") if part)


def _cell(kind: str, values: list[Json], now: datetime) -> Json:
    if not values:
        return None
    value = values[0]
    match kind:
        case "date":
            try:
                return age(value, now) if isinstance(value, str) else None
            except ValueError:
                return "<invalid>"
        case "integer" | "number":
            return value if isinstance(value, int | float) and not isinstance(value, bool) else None
        case "boolean":
            return value if isinstance(value, bool) else None
    if len(values) > 1:
        return ",".join(str(item) for item in values)
    return value if isinstance(value, str) else _text(value)


def _text(value: Json) -> str:
    return msgspec.json.encode(value).decode()
