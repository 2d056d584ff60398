"""The sub-resource `scale`: the desired and current replicas of any kind (autoscaling/v1, `Scale`)."""

from __future__ import annotations

import functools

import msgspec
from aiohttp import web

from cumulet.common.ascii import fold
from cumulet.common.kubernetes.objects import Object
from cumulet.kube import schema
from cumulet.kube.access.users import User
from cumulet.kube.apimachinery.status import ApiError, bad_request, conflict, failure, invalid
from cumulet.kube.codec import decode_body, json_value
from cumulet.kube.http.body import read
from cumulet.kube.http.negotiation import encode
from cumulet.kube.http.request_info import Target
from cumulet.kube.http.worker_threads import LARGE_YAML, offload
from cumulet.kube.http.write_context import WriteContext
from cumulet.kube.objects.patch import unpatched
from cumulet.kube.objects.write import Objects
from cumulet.kube.patch import json_patch, merge_patch
from cumulet.kube.patch.json_patch import JsonPatchError
from cumulet.kube.schema.validation.field_errors import invalid as invalid_value
from cumulet.kube.tables.text import selector_text

_TRIES = 16
_REPLICAS = ("spec", "replicas")
_KEPT = ("name", "namespace", "uid", "resourceVersion", "creationTimestamp")


class Scales:
    """Answers requests on `scale`. Raises `ApiError`."""

    def __init__(self, objects: Objects) -> None:
        self._objects = objects

    async def get(self, request: web.BaseRequest, target: Target) -> web.Response:
        """Return the scale of an object."""
        return encode(request, _scale(target, await self._objects.load(target.row, target.namespace, target.name)))

    async def change(self, request: web.BaseRequest, user: User, target: Target) -> web.Response:
        """Set the desired replicas by an update or a patch; retried where another writer was faster."""
        raw = await read(request)
        media = fold(request.headers.get("Content-Type", "").partition(";")[0].strip())
        by = WriteContext.of(request, user)
        for _ in range(_TRIES):
            obj = await self._objects.latest(target.row, target.namespace, target.name)
            version, current = obj["metadata"]["resourceVersion"], _scale(target, obj)
            wanted = await offload(len(raw), functools.partial(_wanted, target, media, raw, current), LARGE_YAML)
            wanted = _checked(target, wanted)
            if (wanted.get("metadata") or {}).get("resourceVersion") not in (None, "", version):
                raise conflict(target.row.group, target.row.plural, target.name)
            wanted = await self._objects.admit(target, "UPDATE", wanted, current, by)
            replicas = (wanted.get("spec") or {}).get("replicas") or 0
            if replicas < 0:
                cause = invalid_value("spec.replicas", replicas, "must be greater than or equal to 0")
                raise invalid("autoscaling", "Scale", target.name, [cause])

            def change(now: Object, version: str = version, replicas: int = replicas) -> Object:
                if now["metadata"]["resourceVersion"] != version:
                    raise _MovedError
                custom = target.row.custom
                _put(now, custom.scale.spec if custom is not None and custom.scale else _REPLICAS, replicas)
                return now

            place = (target.row, target.namespace, target.name)
            try:
                made = await self._objects.change(*place, change, by, subresource="scale")
            except _MovedError:
                continue
            return encode(request, _scale(target, made), 200, by.warnings)
        raise conflict(target.row.group, target.row.plural, target.name)


class _MovedError(Exception):
    """Another writer changed the object."""


def _wanted(target: Target, media: str, raw: bytes, current: Object) -> Object:
    """Return the scale that a request sends."""
    if target.verb == "update":
        return decode_body(media, raw, "Scale")
    if media != "application/json-patch+json":
        merged: Object = merge_patch(current, decode_body("application/json", raw, "Scale"))
        return merged
    try:
        patched: Object = json_patch(current, json_value(raw))
    except (msgspec.DecodeError, RecursionError) as error:
        raise bad_request(f"error decoding patch: {error}") from None
    except JsonPatchError:
        why = "the server rejected our request due to an error in our request"
        raise ApiError(422, "Invalid", why, {}) from None
    if not isinstance(patched, dict):
        raise bad_request("the patched object is not an object")
    return patched


def _checked(target: Target, wanted: Object) -> Object:
    """Return a scale with its fields checked. Raises `ApiError` 400 and 422."""
    text = msgspec.json.encode(wanted)
    try:
        schema.prune(wanted, "autoscaling", "v1", "Scale")
    except ApiError as error:
        raise (error if target.verb == "update" else unpatched(text, error)) from None
    name = (wanted.get("metadata") or {}).get("name") or target.name
    if name != target.name:
        raise bad_request(f"the name of the object ({name}) does not match the name on the URL ({target.name})")
    return wanted


def _scale(target: Target, obj: Object) -> Object:
    metadata = obj["metadata"]
    custom = target.row.custom.scale if target.row.custom is not None else None
    wanted, there = (custom.spec, custom.status) if custom else (_REPLICAS, ("status", "replicas"))
    status: Object = {"replicas": _at(obj, there) or 0}
    selector = _at(obj, custom.selector) if custom else selector_text((obj.get("spec") or {}).get("selector"))
    if selector and selector != "<none>":
        status["selector"] = selector
    return {
        "kind": "Scale",
        "apiVersion": "autoscaling/v1",
        "metadata": {key: metadata[key] for key in _KEPT if key in metadata},
        "spec": {"replicas": _at(obj, wanted) or 0},
        "status": status,
    }


def _at(obj: object, path: tuple[str, ...]) -> object:
    for name in path:
        obj = obj.get(name) if isinstance(obj, dict) else None
    return obj if path else None


def _put(obj: Object, path: tuple[str, ...], value: int) -> None:
    """Set a value. Raises `ApiError` 500 as upstream does, where a custom object has no map on the path."""
    for index, name in enumerate(path[:-1], 1):
        obj = obj.setdefault(name, {})
        if not isinstance(obj, dict):
            where = ".".join(path[:index])
            raise failure(f"value cannot be set because .{where} is not a map[string]interface {{}}")
    obj[path[-1]] = value
