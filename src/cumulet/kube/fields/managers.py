"""The entries of `metadata.managedFields`, and how updates and applies change them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple

from cumulet.common import clock
from cumulet.common.kubernetes.objects import Object
from cumulet.kube.fields import sets
from cumulet.kube.fields.merge import abandoned, compare, field_set, made, merge, without_paths
from cumulet.kube.fields.sets import Node
from cumulet.kube.fields.shape import Shape

if TYPE_CHECKING:
    from cumulet.common.kubernetes.objects import ManagedFieldsEntry

_UPDATERS = 10
_BEFORE = "before-first-apply"
_ANCIENT = "ancient-changes"
#: Fields that the server writes, or that identify the object: no manager owns them.
_STRIPPED = frozenset(
    f"f:{name}"
    for name in (
        "name",
        "namespace",
        "creationTimestamp",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
        "selfLink",
        "uid",
        "generation",
        "managedFields",
        "resourceVersion",
    )
)


_IN_ORDER: tuple[Literal["manager", "operation", "apiVersion", "time"], ...] = (
    "manager",
    "operation",
    "apiVersion",
    "time",
)


class Manager(NamedTuple):
    """A writer: its manager name, the version of its object, and the sub-resource."""

    name: str
    api_version: str
    subresource: str = ""


class ApplyConflictError(Exception):
    """An apply would change fields of other managers: pairs of the shown manager and a path."""

    def __init__(self, conflicts: list[tuple[str, str]]) -> None:
        super().__init__()
        self.conflicts = conflicts


class _Entry:
    """The fields of one manager."""

    def __init__(self, raw: ManagedFieldsEntry) -> None:
        self.raw = raw
        self.fields: Node = raw.get("fieldsV1") or {}

    @property
    def key(self) -> tuple[str, str, str, str]:
        raw = self.raw
        applied = raw.get("operation") == "Apply"
        version = "" if applied else raw.get("apiVersion", "")
        return raw.get("manager", ""), raw.get("operation", ""), version, raw.get("subresource", "")

    def shown(self) -> str:
        """Return the manager as conflicts show it."""
        raw = self.raw
        text = f'"{raw.get("manager", "")}"'
        if raw.get("subresource"):
            text += f' with subresource "{raw["subresource"]}"'
        if raw.get("operation") == "Update":
            text += f" using {raw.get('apiVersion', '')}"
        return text


def track(old: Object, new: Object, shape: Shape, manager: Manager, *, keeps_status: bool) -> None:
    """Set the managed fields of a created or updated object, in place.

    `old` is `{}` for a new object. `keeps_status` is true where this write can set the status.
    """
    entries = _entries(new, old, manager)
    if old and not entries:
        # An object without owners gets its first ones by an apply.
        _write(new, [])
        return
    changed, removed = compare(_plain(old), _plain(new), shape) if old else (made(_plain(new), shape), {})
    changed = _owned(changed, keeps_status=keeps_status)
    if changed or removed:
        mine = _find(entries, "Update", manager)
        for entry in entries:
            if entry is not mine:
                entry.fields = sets.difference(sets.difference(entry.fields, changed), removed)
        if mine is None:
            mine = _new(entries, "Update", manager)
        fields = sets.union(sets.difference(mine.fields, removed), changed)
        if fields != mine.fields:
            mine.fields = fields
            if manager.subresource != "scale":  # upstream gives these no time
                mine.raw = {**mine.raw, "time": clock.rfc3339()}
    _write(new, _capped([entry for entry in entries if entry.fields]))


def apply(live: Object, config: Object, shape: Shape, manager: Manager, *, force: bool) -> Object:
    """Return the live object with a configuration applied, and its managed fields; `live` is `{}` for a new object.

    Raises `ApplyConflictError`, and `FieldsError` where the configuration does not fit the schema.
    """
    entries = _entries(live, live, manager)
    before = _plain(live)
    if live and not entries:
        entries = [_unknown(before, shape, manager)]
    wanted = _plain(config)
    mine = _find(entries, "Apply", manager)
    last = mine.fields if mine is not None else {}
    if mine is None:
        mine = _new(entries, "Apply", manager)
    mine.fields = _owned(field_set(wanted, shape), keeps_status=bool(manager.subresource))
    merged = merge(before, wanted, shape)
    owned: Node = {}
    for entry in entries:
        owned = sets.union(owned, entry.fields)
    merged = without_paths(merged, abandoned(last, owned, shape), shape) or {}
    changed, removed = compare(before, merged, shape)
    hits = [(entry, sets.intersection(entry.fields, changed)) for entry in entries if entry is not mine]
    conflicts = [(entry.shown(), path) for entry, hit in hits for path in sets.paths(hit)]
    if conflicts and not force:
        raise ApplyConflictError(conflicts)
    for entry, hit in hits:
        entry.fields = sets.difference(sets.difference(entry.fields, hit), removed)
    # As in upstream, an apply that changes only the owners does not change the time.
    if not live or changed or removed:
        mine.raw = {**mine.raw, "time": clock.rfc3339()}
    mine.raw["apiVersion"] = manager.api_version
    _write(merged, [entry for entry in entries if entry.fields or entry is mine])
    return merged


def _unknown(live: Object, shape: Shape, manager: Manager) -> _Entry:
    """Return the owner of the fields that existed before the first apply."""
    raw: ManagedFieldsEntry = {
        "manager": _BEFORE,
        "operation": "Update",
        "apiVersion": manager.api_version,
        "time": clock.rfc3339(),
    }
    entry = _Entry(raw)
    entry.fields = _owned(made(live, shape), keeps_status=False)
    return entry


def _plain(obj: Object) -> Object:
    """Return an object without its managed fields."""
    metadata = obj.get("metadata")
    if not metadata or "managedFields" not in metadata:
        return obj
    return {**obj, "metadata": {key: value for key, value in metadata.items() if key != "managedFields"}}


def _entries(new: Object, live: Object, manager: Manager) -> list[_Entry]:
    """Return the current entries: the request's where they are valid, else those of the live object."""
    given = None if manager.subresource else (new.get("metadata") or {}).get("managedFields")
    if given == [{}]:
        return []  # requests a reset
    own: list[ManagedFieldsEntry] = (live.get("metadata") or {}).get("managedFields") or []
    # Entries that the server wrote need no check.
    if given and given != own and all(_is_good(entry) for entry in given):
        own = given
    return [_Entry(entry.copy()) for entry in own]


def _is_good(entry: ManagedFieldsEntry) -> bool:
    is_named = bool(entry.get("manager")) and entry.get("operation") in ("Apply", "Update")
    return is_named and sets.is_set(entry.get("fieldsV1") or {})


def _find(entries: list[_Entry], operation: str, manager: Manager) -> _Entry | None:
    version = "" if operation == "Apply" else manager.api_version
    wanted = (manager.name, operation, version, manager.subresource)
    return next((entry for entry in entries if entry.key == wanted), None)


def _new(entries: list[_Entry], operation: str, manager: Manager) -> _Entry:
    raw: ManagedFieldsEntry = {"manager": manager.name, "operation": operation, "apiVersion": manager.api_version}
    if manager.subresource:
        raw["subresource"] = manager.subresource
    entry = _Entry(raw)
    entries.append(entry)
    return entry


def _owned(fields: Node, *, keeps_status: bool) -> Node:
    left = {key: child for key, child in fields.items() if key not in ("f:apiVersion", "f:kind")}
    if not keeps_status:
        left.pop("f:status", None)
    if "f:metadata" in left:
        metadata = {
            key: child for key, child in left.pop("f:metadata").items() if key not in _STRIPPED and key != "."
        }
        if metadata:
            left["f:metadata"] = metadata
    return left


def _capped(entries: list[_Entry]) -> list[_Entry]:
    """Merge the oldest updaters into one entry, so that at most ten remain."""
    updaters = [entry for entry in entries if entry.raw.get("operation") == "Update"]
    if len(updaters) <= _UPDATERS:
        return entries
    updaters.sort(key=lambda entry: entry.raw.get("time", ""))
    old = updaters[: len(updaters) - _UPDATERS + 1]
    merged = _Entry({**old[0].raw, "manager": _ANCIENT})
    merged.raw.pop("subresource", None)
    for entry in old:
        merged.fields = sets.union(merged.fields, entry.fields)
    return [entry for entry in entries if entry not in old] + [merged]


def _write(obj: Object, entries: list[_Entry]) -> None:
    entries.sort(
        key=lambda entry: (
            entry.raw.get("operation", ""),
            entry.raw.get("time", ""),
            entry.raw.get("manager", ""),
            entry.raw.get("apiVersion", ""),
            entry.raw.get("subresource", ""),
        )
    )
    metadata = obj.setdefault("metadata", {})
    metadata.pop("managedFields", None)
    if entries:
        metadata["managedFields"] = [_raw(entry) for entry in entries]


def _raw(entry: _Entry) -> ManagedFieldsEntry:
    raw = entry.raw
    made: ManagedFieldsEntry = {}
    for key in _IN_ORDER:
        if key in raw:
            made[key] = raw[key]
    made["fieldsType"], made["fieldsV1"] = "FieldsV1", entry.fields
    if raw.get("subresource"):
        made["subresource"] = raw["subresource"]
    return made
