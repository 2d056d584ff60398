"""Server-side apply: a request has only the fields that its sender wants to own."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

from aiohttp import web

from cumulet.common.ascii import fold
from cumulet.common.kubernetes.objects import Object
from cumulet.kube.access.users import User
from cumulet.kube.apimachinery.status import ApiError, bad_request, conflict, failure
from cumulet.kube.catalog import kinds
from cumulet.kube.catalog.builtin_conversion import from_stored, to_stored
from cumulet.kube.codec.repeated import as_one, repeated
from cumulet.kube.fields import ApplyConflictError, Manager, apply, misfit
from cumulet.kube.fields.merge import FieldsError
from cumulet.kube.http.body import decoded, field_validation, whole
from cumulet.kube.http.negotiation import encode
from cumulet.kube.http.options import check_write
from cumulet.kube.http.request_info import Target
from cumulet.kube.http.worker_threads import LARGE_YAML, offload
from cumulet.kube.http.write_context import WriteContext
from cumulet.kube.objects.write import Objects

if TYPE_CHECKING:
    from cumulet.common.kubernetes.objects import StatusCause

_MEDIA = "application/apply-patch+yaml"


def is_apply(request: web.BaseRequest) -> bool:
    """Return whether a patch is an apply."""
    return fold(request.headers.get("Content-Type", "").partition(";")[0].strip()) == _MEDIA


class ServerSideApply:
    """Applies configurations to stored objects."""

    def __init__(self, objects: Objects) -> None:
        self._objects = objects

    async def apply(self, request: web.BaseRequest, user: User, target: Target, raw: bytes) -> web.Response:
        """Answer an apply request. Raises `ApiError` 400, 409 and 422."""
        row = target.row
        check_write(request, is_apply=True)
        config = await decoded(_MEDIA, raw, row.kind)
        kind, version = config.get("kind") or "", config.get("apiVersion") or ""
        if (kind, version) != (row.kind, row.api_version):
            group, _, name = version.rpartition("/")
            raise bad_request(f"invalid object type: {group}/{name}, Kind={kind}")
        warnings = await offload(len(raw), lambda: repeated(_MEDIA, raw, config), LARGE_YAML)
        validation = field_validation(request)
        if warnings and validation == "Strict":
            why = "".join(as_one(_MEDIA, warnings))
            raise bad_request(f"error strict decoding YAML: error converting YAML to JSON: {why}")
        where = f"{_place(config)}; {row.api_version}, Kind={row.kind}"
        if why := misfit(config, kinds.definition(row)):
            raise failure(f"failed to create typed patch object ({where}): {why}")
        unknown = await offload(len(raw), lambda: self._objects.decode(row, config, "Warn", fill=False))
        if unknown:
            path = unknown[0].removeprefix('unknown field "').rstrip('"')
            raise failure(f"failed to create typed patch object ({where}): .{path}: field not declared in schema")
        metadata = config["metadata"]
        if metadata.pop("managedFields", None):
            raise bad_request("metadata.managedFields must be nil")
        if metadata.setdefault("name", target.name) != target.name:
            raise bad_request(
                f"the name of the object ({metadata['name']}) does not match the name on the URL ({target.name})"
            )
        who = Manager(request.query["fieldManager"], row.api_version, target.subresource)
        by = WriteContext.of(request, user)
        by.warnings += warnings if validation == "Warn" else []
        force = fold(request.query.get("force", "")) in ("true", "1")
        try:
            made, code = await self._store(target, config, who, by, force=force)
        except ApplyConflictError as error:
            raise _conflict(error.conflicts) from None
        except FieldsError as error:
            raise bad_request(f"failed to create typed patch object: {error}") from None
        return encode(request, whole(row, made), code, by.warnings)

    async def _store(
        self, target: Target, config: Object, who: Manager, by: WriteContext, *, force: bool
    ) -> tuple[Object, int]:
        row = target.row
        version = config["metadata"].pop("resourceVersion", None)

        def changed(old: Object) -> Object:
            before = from_stored(row, old) if old else {}
            obj = apply(before, copy.deepcopy(config), kinds.shape(row), who, force=force)
            kinds.prune(row, obj)
            if version:
                obj["metadata"]["resourceVersion"] = version
            return to_stored(row, obj)

        if self._objects.exists(row, target.namespace, target.name) or target.subresource:
            made = await self._objects.change(
                row.hub or row,
                target.namespace,
                target.name,
                changed,
                by,
                subresource=target.subresource,
                applied=True,
            )
            return made, 200
        if uid := config["metadata"].get("uid"):
            why = f"uid mismatch: the provided object specified uid {uid}, and no existing object was found"
            raise conflict(row.group, row.plural, target.name, why)
        obj = await offload(by.size, lambda: changed({}))
        return await self._objects.create(row.hub or row, target.namespace, obj, by, applied=True), 201


def _place(config: Object) -> str:
    """Return namespace and name of a configuration that is not checked yet."""
    metadata = config.get("metadata")
    parts = [metadata.get(key) if isinstance(metadata, dict) else "" for key in ("namespace", "name")]
    return "/".join(value if isinstance(value, str) else "" for value in parts)


def _conflict(conflicts: list[tuple[str, str]]) -> ApiError:
    causes: list[StatusCause] = [
        {"reason": "FieldManagerConflict", "message": f"conflict with {who}", "field": path}
        for who, path in conflicts
    ]
    if len(conflicts) == 1:
        text = f"1 conflict: conflict with {conflicts[0][0]}: {conflicts[0][1]}"
    else:
        lines: list[str] = []
        for manager_shown in sorted({who for who, _ in conflicts}):
            lines.append(f"conflicts with {manager_shown}:")
            lines += [f"- {path}" for who, path in conflicts if who == manager_shown]
        text = f"{len(conflicts)} conflicts: " + "\n".join(lines)
    return ApiError(409, "Conflict", f"Apply failed with {text}", {"causes": causes})
