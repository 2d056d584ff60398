"""Writes: create, update, patch and delete, with the steps that every kind takes on the way to the store."""

from __future__ import annotations

import contextlib
import copy
import functools
import re
from collections.abc import Callable, Sequence

from cumulet.common.kubernetes.objects import Object
from cumulet.kube import schema
from cumulet.kube.admission import Admission
from cumulet.kube.admission.webhooks import AdmissionRequest
from cumulet.kube.apimachinery.names import generate
from cumulet.kube.apimachinery.status import (
    ApiError,
    already_exists,
    bad_request,
    conflict,
    failure,
    not_found,
)
from cumulet.kube.catalog import custom_definitions, kinds
from cumulet.kube.catalog.custom_conversion import Conversions
from cumulet.kube.catalog.resources import BY_KEY, Row
from cumulet.kube.codec.go_messages import untyped
from cumulet.kube.discovery.groups import subresource_kind
from cumulet.kube.fields import Manager, track
from cumulet.kube.http.request_info import Target
from cumulet.kube.http.worker_threads import offload
from cumulet.kube.http.write_context import SELF, WriteContext
from cumulet.kube.objects.deletion import begin_deletion, check_preconditions, is_finished
from cumulet.kube.objects.metadata import WRITTEN_BY_SERVER, carry_over, start_metadata
from cumulet.kube.objects.service_allocator import ServiceAllocator
from cumulet.kube.objects.validation import validate
from cumulet.kube.schema.prune import strict_error
from cumulet.kube.schema.subresource_updates import PARTS
from cumulet.kube.schema.validation.field_errors import quoted
from cumulet.kube.store import ConflictError, Store, Stored

Change = Callable[[Object], Object]

_TRIES = 16
#: Updates that go to webhooks and policies: of the object and of its parts.
_SEEN = ("", *PARTS)


class Objects:
    """Reads and writes objects. Methods return the whole object, as stored, and raise `ApiError`."""

    def __init__(
        self, store: Store, admission: Admission, allocator: ServiceAllocator, conversions: Conversions
    ) -> None:
        self._store = store
        self._conversions = conversions
        self._admission = admission
        self._allocator = allocator

    def get(self, row: Row, namespace: str, name: str) -> Stored:
        """Return an object from disk. Raises `ApiError` 404."""
        stored = self.find(row, namespace, name)
        if stored is None:
            raise not_found(row.group, row.plural, name)
        return stored

    async def load(self, row: Row, namespace: str, name: str) -> Object:
        """Return a copy of an object in the row's version. Raises `ApiError` 404."""
        return await self._conversions.load(row, self.get(row, namespace, name))

    async def latest(self, row: Row, namespace: str, name: str) -> Object:
        """Return the newest state of an object, on disk or on its way there: the start of a change.

        Raises `ApiError` 404.
        """
        stored = self._store.newest(row.key, namespace, name)
        if stored is None:
            raise not_found(row.group, row.plural, name)
        return await self._conversions.load(row, stored)

    def find(self, row: Row, namespace: str, name: str) -> Stored | None:
        """Return an object from disk, or `None`."""
        return self._store.get(row.key, namespace, name)

    def _warn(self, row: Row, obj: Object, old: Object | None, by: WriteContext) -> None:
        by.warnings += kinds.warnings(row, obj, old) + self._admission.warnings(row, obj)

    def exists(self, row: Row, namespace: str, name: str) -> bool:
        """Return whether an object exists, on disk or on its way there."""
        return self._store.newest(row.key, namespace, name) is not None

    def decode(
        self,
        row: Row,
        obj: Object,
        validation: str,
        repeated: Sequence[str] = (),
        *,
        fill: bool = True,
        before: Object | None = None,
    ) -> list[str]:
        """Check the kind and the types of a client's object, remove unknown and disabled fields, and return warnings.

        The warnings about `repeated` fields come first. Without `fill` required fields stay absent, as an applied
        configuration has only the fields that its manager owns. With `before`, the object that was patched, fields
        that the patch left alone are not decoded again.
        """
        if reason := untyped(obj):
            raise bad_request(f"couldn't get version/kind; json parse error: {reason}")
        # Kind and version may be left out.
        kind, api_version = obj.pop("kind", None) or row.kind, obj.pop("apiVersion", None) or row.api_version
        if (kind, api_version) != (row.kind, row.api_version):
            raise bad_request(
                f'{kind} in version "{api_version.rpartition("/")[2]}" cannot be handled as a {row.kind}: '
                f"{kinds.mismatch(row, kind, api_version)}"
            )
        found = kinds.prune(row, obj, fill=fill, pruned=before)
        unknown = [*repeated, *found.unknown]
        if unknown and validation == "Strict":
            raise strict_error(row.kind, row.version, unknown)
        metadata = obj.setdefault("metadata", {})
        metadata.pop("selfLink", None)
        return [*(unknown if validation != "Ignore" else ()), *found.disabled]

    async def admit(
        self, target: Target, operation: str, obj: Object, old: Object | None, by: WriteContext
    ) -> Object:
        """Return the body of a sub-resource with a kind of its own, as admission leaves it. Raises `ApiError`."""
        kind = subresource_kind(target.row, target.subresource) if target.subresource else None
        place = (target.row, target.namespace, target.name, target.subresource)
        request = AdmissionRequest(operation, *place, obj, old, by.user, by.dry_run, kind)

        def complete(changed: Object) -> None:
            if kind is not None:
                schema.prune(changed, *kind)

        return await self._admission.admit_part(request, by.warnings, complete)

    async def create(
        self,
        row: Row,
        namespace: str,
        obj: Object,
        by: WriteContext | None = None,
        *,
        applied: bool = False,
    ) -> Object:
        """Store a new object; with `applied` it has its managed fields already."""
        by = by or WriteContext()
        metadata = obj["metadata"]
        start_metadata(row, namespace, metadata)

        def prepare() -> None:
            kinds.set_defaults(row, obj)
            if not applied:
                who = Manager(by.manager, row.api_version)
                track({}, obj, kinds.shape(row), who, keeps_status="status" not in row.subresources)
            kinds.prepare_for_create(row, obj)

        await offload(by.size, prepare)
        self._admission.admit(row, obj, by.user)
        request = AdmissionRequest(
            "CREATE", row, namespace, metadata.get("name", ""), "", obj, None, by.user, by.dry_run
        )
        obj = await self._changed(request, by)
        metadata = obj["metadata"]
        # Admission may change the name while it is only generated.
        if not metadata.get("name") and metadata.get("generateName"):
            metadata["name"] = generate(metadata["generateName"])
        request = request._replace(name=metadata.get("name", ""))
        kinds.label_after_name(row, obj)
        taken = self._allocator.complete(obj) if row.key == "services" else set()
        try:
            await validate(row, obj, None, by)
            if row.key == custom_definitions.KEY:
                custom_definitions.establish(obj)
            await self._admission.validate(request._replace(obj=obj), by.warnings)
            stored = await self._conversions.stored(row, obj)
            self._admission.charge(row, obj)
            self._warn(row, obj, None, by)
            if by.dry_run:
                if self._store.newest(row.key, namespace, metadata["name"]) is not None:
                    raise already_exists(row.group, row.plural, metadata["name"])
                return obj
            made = await self._store.create(row.key, namespace, metadata["name"], stored)
            metadata["resourceVersion"] = str(made.revision)
            for name, used in self._admission.used(row, obj).items():
                await self._write_used(namespace, name, used)
        except ConflictError:
            raise already_exists(row.group, row.plural, metadata["name"]) from None
        finally:
            self._allocator.release(taken)
        return obj

    async def _write_used(self, namespace: str, quota: str, used: dict[str, str]) -> None:
        """Write the used amounts into a quota's status."""

        def change(obj: Object) -> Object:
            obj["status"]["used"] = (obj["status"].get("used") or {}) | used
            return obj

        with contextlib.suppress(
            ApiError
        ):  # the quota is gone, or other writers are faster each time: its controller counts too
            await self.rewrite(BY_KEY["resourcequotas"], namespace, quota, change)

    async def change(
        self,
        row: Row,
        namespace: str,
        name: str,
        change: Change,
        by: WriteContext | None = None,
        *,
        subresource: str = "",
        applied: bool = False,
    ) -> Object:
        """Replace an object by the result of `change`, and try again where another writer was faster.

        A `resourceVersion` that `change` sets is a precondition. With `applied` the object has its managed fields
        already.
        """
        by = by or WriteContext()
        for _ in range(_TRIES):
            before = self._store.newest(row.key, namespace, name)
            if before is None:
                raise not_found(row.group, row.plural, name)
            old = await self._conversions.load(row, before)
            start = before.load() if row.custom is None else copy.deepcopy(old)
            obj = await offload(by.size, functools.partial(change, start))
            version = obj["metadata"].get("resourceVersion")
            if version and not re.fullmatch(r"[0-9]{1,20}", version):
                raise failure(f"strconv.ParseUint: parsing {quoted(version)}: invalid syntax")
            if version and version != str(before.revision):
                raise conflict(row.group, row.plural, name)

            def prepared(obj: Object = obj, old: Object = old) -> Object:
                made = self._prepared(row, obj, old, subresource)
                made["metadata"]["resourceVersion"] = old["metadata"]["resourceVersion"]
                if not applied:
                    keeps_status = bool(subresource) or "status" not in row.subresources
                    who = Manager(by.manager, row.api_version, subresource)
                    track(old, made, kinds.shape(row), who, keeps_status=keeps_status)
                return made

            obj = await offload(by.size, prepared)
            self._admission.admit_update(row, subresource, obj, old, by.user)
            request = AdmissionRequest("UPDATE", row, namespace, name, subresource, obj, old, by.user, by.dry_run)
            if subresource in _SEEN:
                obj = await self._changed(request, by)
            taken = self._allocator.complete(obj, old) if row.key == "services" and not subresource else set()
            try:
                await validate(row, obj, old, by, subresource)
                if row.key == custom_definitions.KEY and not subresource:
                    custom_definitions.establish(obj)
                if subresource in _SEEN:
                    await self._admission.validate(request._replace(obj=obj), by.warnings)
                stored = await self._conversions.stored(row, obj)
                # An object stored in an old version is written even if nothing changed, as storage migration needs.
                is_same = obj == old and (
                    row.custom is None or stored["apiVersion"] == before.load().get("apiVersion")
                )
                if not is_same:
                    self._admission.charge(row, obj, old, subresource)
                if is_same or by.dry_run:
                    self._warn(row, obj, old, by)
                    return obj
                write = self._store.delete if is_finished(obj) else self._store.update
                made = await write(row.key, before, stored)
                obj["metadata"]["resourceVersion"] = str(made.revision)
                self._warn(row, obj, old, by)
                return obj
            except ConflictError:
                continue
            finally:
                self._allocator.release(taken)
        raise conflict(row.group, row.plural, name)

    async def rewrite(self, row: Row, namespace: str, name: str, change: Change) -> Object:
        """Replace an object by the result of `change`, without the rules of updates: for the server's own writes."""
        for _ in range(_TRIES):
            before = self._store.newest(row.key, namespace, name)
            if before is None:
                raise not_found(row.group, row.plural, name)
            obj = change(before.load())
            try:
                if is_finished(obj):
                    await self._store.delete(row.key, before, obj)
                else:
                    await self._store.update(row.key, before, obj)
                return obj
            except ConflictError:
                continue
        raise conflict(row.group, row.plural, name)

    async def delete(
        self,
        row: Row,
        namespace: str,
        name: str,
        options: Object,
        by: WriteContext | None = None,
        *,
        is_validated: bool = False,
    ) -> tuple[Object, bool]:
        """Delete an object, or mark it as terminating; return the object, and whether it was removed.

        With `is_validated`, policies and webhooks have already decided on the request that leads to the deletion.
        """
        by = by or WriteContext()
        for _ in range(_TRIES):
            before = self._store.newest(row.key, namespace, name)
            if before is None:
                raise not_found(row.group, row.plural, name)
            obj = before.load()
            check_preconditions(row, name, obj, options)
            self.check_deletion(row, obj, by)
            shown = await self._conversions.load(row, before) if by.user is not SELF else obj
            request = AdmissionRequest("DELETE", row, namespace, name, "", None, shown, by.user, by.dry_run)
            if not is_validated:
                await self._admission.validate(request, by.warnings)
            finished = begin_deletion(row, obj, options)
            answer = obj if row.custom is None else {**shown, "metadata": obj["metadata"]}
            if by.dry_run:
                return answer, finished
            try:
                if finished:
                    await self._store.delete(row.key, before, obj)
                elif obj != before.load():
                    await self._store.update(row.key, before, obj)
                return answer, finished
            except ConflictError:
                continue
        raise conflict(row.group, row.plural, name)

    def check_deletion(self, row: Row, obj: Object, by: WriteContext) -> None:
        """Check whether an object may be deleted at all. Raises `ApiError` 403."""
        self._admission.admit_deletion(row, obj, by.user)

    def _prepared(self, row: Row, obj: Object, old: Object, subresource: str) -> Object:
        carry_over(row, obj["metadata"], old["metadata"])
        kinds.set_defaults(row, obj)
        self._admission.complete_update(row, subresource, obj)
        kinds.prepare_for_update(row, obj, old, subresource)
        return obj

    async def _changed(self, request: AdmissionRequest, by: WriteContext) -> Object:
        """Return an object as webhooks and policies change it; fields that the server writes stay."""
        row, obj = request.row, request.obj
        assert obj is not None
        if not self._admission.changes:
            return obj
        kept = {key: obj["metadata"][key] for key in WRITTEN_BY_SERVER if key in obj["metadata"]}

        def complete(completed: Object) -> None:
            kinds.prune(row, completed)
            kinds.set_defaults(row, completed)
            completed["metadata"].update(kept)

        changed = await self._admission.change(request, by.warnings, complete)
        assert changed is not None
        return changed
