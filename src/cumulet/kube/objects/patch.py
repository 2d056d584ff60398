"""Patches: how to apply the one of a request, and the errors of one that cannot be applied."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import msgspec
from aiohttp import web

from cumulet.common.ascii import fold
from cumulet.common.kubernetes.objects import Object
from cumulet.kube.apimachinery.status import ApiError, bad_request, failure
from cumulet.kube.catalog.resources import Row
from cumulet.kube.codec import json_value
from cumulet.kube.codec.go_messages import KINDS, json_error
from cumulet.kube.codec.repeated import of_json_patch, repeated
from cumulet.kube.patch import json_patch, merge_patch, strategic_merge
from cumulet.kube.patch.json_patch import JsonPatchError
from cumulet.kube.patch.strategic import StrategicPatchError
from cumulet.kube.schema.validation.field_errors import quoted

if TYPE_CHECKING:
    from cumulet.common.kubernetes.objects import StatusCause

_JSON = "application/json-patch+json"
_MERGE = "application/merge-patch+json"
_STRATEGIC = "application/strategic-merge-patch+json"
_CUSTOM = (_JSON, _MERGE, "application/apply-patch+yaml")


def patcher(request: web.BaseRequest, row: Row, raw: bytes) -> tuple[Callable[[Object], Object], list[str]]:
    """Return the function that applies a request's patch, and the warnings of strict decoding.

    Raises `ApiError` 400 and 415.
    """
    media = fold(request.headers.get("Content-Type", "").partition(";")[0].strip())
    if media not in (_JSON, _MERGE, _STRATEGIC):
        raise ApiError(415, "UnsupportedMediaType", "415: Unsupported Media Type", {})
    try:
        patch = json_value(raw)
    except (msgspec.DecodeError, RecursionError) as error:
        raise bad_request(f"error decoding patch: {json_error(raw, error)}") from None
    if row.custom is not None and media == _STRATEGIC:
        why = "the body of the request was in an unknown format - accepted media types include: " + ", ".join(_CUSTOM)
        raise ApiError(415, "UnsupportedMediaType", why, {})
    if media == _JSON:
        return lambda old: _json_patched(old, patch), of_json_patch(raw, patch)
    if not isinstance(patch, dict):
        kind = "nil" if patch is None else KINDS[type(patch)]
        why = f"json: cannot unmarshal {kind} into Go value of type map[string]interface {{}}"
        raise bad_request(why if media == _STRATEGIC else f"error decoding patch: {why}")
    warnings = repeated(media, raw, patch)
    if media == _MERGE:
        return lambda old: merge_patch(old, patch), warnings
    return lambda old: _strategic(old, patch, row), warnings


def _json_patched(old: Object, patch: object) -> Object:
    if not isinstance(patch, list):
        kind = "nil" if patch is None else KINDS[type(patch)]
        raise bad_request(
            f"error decoding patch: json: cannot unmarshal {kind} into Go value of type []handlers.jsonPatchOp"
        )
    try:
        return json_patch(old, patch)  # type: ignore[no-any-return]
    except JsonPatchError:
        message = "the server rejected our request due to an error in our request"
        raise ApiError(422, "Invalid", message, {}) from None


def _strategic(old: Object, patch: Object, row: Row) -> Object:
    try:
        return strategic_merge(old, patch, row.group, row.version, row.kind)
    except StrategicPatchError as error:
        if error.restored:
            raise _invalid(go_map(patch), error.restored) from None
        raise (failure(str(error)) if error.is_upstreams else bad_request(str(error))) from None
    except (AttributeError, TypeError) as error:
        raise bad_request(f"invalid strategic merge patch: {error}") from None


def unpatched(text: bytes, error: ApiError) -> ApiError:
    """Return the error for a patched object that cannot be decoded."""
    _, separator, why = str(error).partition(" cannot be handled as a ")
    if error.code != 400 or not separator or 'no kind "' in why or "unknown conversion" in why:
        return error
    return _invalid(text.decode(), why.partition(": ")[2])


def _invalid(value: str, why: str) -> ApiError:
    message = f"Invalid value: {quoted(value)}: {why}"
    cause: StatusCause = {"reason": "FieldValueInvalid", "message": message, "field": "patch"}
    return ApiError(422, "Invalid", f' "" is invalid: patch: {message}', {"causes": [cause]})


def go_map(value: object) -> str:
    """Return a value as Go prints it by default."""
    if isinstance(value, dict):
        return f"map[{' '.join(f'{key}:{go_map(value[key])}' for key in sorted(value))}]"
    if isinstance(value, list):
        return f"[{' '.join(map(go_map, value))}]"
    if isinstance(value, bool):
        return "true" if value else "false"
    return "<nil>" if value is None else str(value)
