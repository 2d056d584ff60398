"""Server-side apply: a request that says what its sender wants of an object, and nothing else."""

from __future__ import annotations

import copy
from typing import Any

from aiohttp import web

from cumulet.kube import kinds
from cumulet.kube.answer import encode
from cumulet.kube.body import whole
from cumulet.kube.codec import decode_body
from cumulet.kube.fields import ApplyConflictError, Manager, apply
from cumulet.kube.fields.walk import FieldsError
from cumulet.kube.objects import Objects
from cumulet.kube.resources import Row
from cumulet.kube.status import ApiError, Cause, bad_request, conflict, invalid
from cumulet.kube.target import Target
from cumulet.kube.users import User
from cumulet.kube.versions import from_stored, to_stored
from cumulet.kube.writer import Writer

Object = dict[str, Any]

_MEDIA = "application/apply-patch+yaml"


def is_apply(request: web.BaseRequest) -> bool:
    """Whether a patch is an apply."""
    return request.headers.get("Content-Type", "").partition(";")[0].strip().lower() == _MEDIA


class Applying:
    """Applies configurations to what is stored."""

    def __init__(self, objects: Objects) -> None:
        self._objects = objects

    async def apply(self, request: web.BaseRequest, user: User, target: Target, raw: bytes) -> web.Response:
        """Answer an apply request. Raises `ApiError` 400, 409 and 422."""
        row = target.row
        if not request.query.get("fieldManager"):
            cause = Cause("fieldManager", "FieldValueRequired", "Required value: is required for apply patch")
            raise invalid("meta.k8s.io", "PatchOptions", "", [cause])
        config = decode_body(_MEDIA, raw, row.kind)
        unknown = self._objects.decode(row, config, "Warn", fill=False)
        if unknown:
            where = f"{target.namespace}/{target.name}; {row.api_version}, Kind={row.kind}"
            path = unknown[0].removeprefix('unknown field "').rstrip('"')
            why = f".{path}: field not declared in schema"
            raise bad_request(f"failed to create typed patch object ({where}): {why}")
        metadata = config["metadata"]
        if metadata.pop("managedFields", None):
            raise bad_request("metadata.managedFields must be nil")
        if metadata.setdefault("name", target.name) != target.name:
            raise bad_request(
                f"the name of the object ({metadata['name']}) does not match the name on the URL ({target.name})"
            )
        who = Manager(request.query["fieldManager"], row.api_version, target.subresource)
        by = Writer.of(request, user)
        force = request.query.get("force", "").lower() in ("true", "1")
        try:
            made, code = await self._store(target, config, who, by, force=force)
        except ApplyConflictError as error:
            raise _conflict(error.conflicts) from None
        except FieldsError as error:
            raise bad_request(f"failed to create typed patch object: {error}") from None
        return encode(request, whole(row, made), code, by.warnings)

    async def _store(
        self, target: Target, config: Object, who: Manager, by: Writer, *, force: bool
    ) -> tuple[Object, int]:
        row = target.row
        version = config["metadata"].pop("resourceVersion", None)

        def changed(old: Object) -> Object:
            obj = apply(from_stored(row, old), _completed(config, row), kinds.shape(row), who, force=force)
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
        if version:
            raise conflict(row.group, row.plural, target.name)
        made = apply({}, _completed(config, row), kinds.shape(row), who, force=force)
        kinds.prune(row, made)
        obj = to_stored(row, made)
        return await self._objects.create(row.hub or row, target.namespace, obj, by, applied=True), 201


def _completed(config: Object, row: Row) -> Object:
    """A copy; a secret's text is data by the time that fields are owned."""
    obj = copy.deepcopy(config)
    if row.key == "secrets" and "stringData" in obj:
        kinds.set_defaults(row, obj)
        if "type" not in config:
            obj.pop("type", None)
    return obj


def _conflict(conflicts: list[tuple[str, str]]) -> ApiError:
    causes = [
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
