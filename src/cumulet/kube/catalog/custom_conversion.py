"""Conversion of custom objects between versions (`apiextensions-apiserver/pkg/apiserver/conversion`).

An object is stored in the storage version of the time of the write, as its first field, and returned in the requested
version. The strategy `None` changes only `apiVersion`; `Webhook` calls a webhook. Fields that the schema of the
returned version does not have are pruned.
"""

from __future__ import annotations

import copy
import uuid
from collections.abc import Sequence

import msgspec

from cumulet.common.kubernetes.objects import Object
from cumulet.kube.apimachinery.status import ApiError
from cumulet.kube.catalog.resources import Row
from cumulet.kube.clients.webhooks import CallError, WebhookClient
from cumulet.kube.store import Stored

_TIMEOUT = 30
_METADATA = ("labels", "annotations")


class Conversions:
    """Converts between the stored form and the form of rows. Other than custom objects stay as they are."""

    def __init__(self, client: WebhookClient) -> None:
        self._client = client

    async def shown(self, row: Row, items: Sequence[Stored]) -> Sequence[Stored]:
        """Return objects in the version of a row, with one webhook call for all. Raises `ApiError` 500."""
        if row.custom is None or all(row.custom.is_form_of(item) for item in items):
            return items
        wrong = [item for item in items if not row.custom.is_form_of(item)]
        objects = await self._converted(row, [item.load() for item in wrong], row.api_version)
        for obj in objects:
            row.custom.prune(obj)
            row.custom.set_defaults(obj)
        made = iter(objects)
        return [
            item if row.custom.is_form_of(item) else item._replace(body=_encoded(row.api_version, next(made)))
            for item in items
        ]

    async def load(self, row: Row, stored: Stored) -> Object:
        """Return a copy of an object in the version of a row, without `apiVersion`. Raises `ApiError` 500."""
        obj = (await self.shown(row, (stored,)))[0].load()
        if row.custom is not None:
            obj.pop("apiVersion", None)
            row.custom.set_defaults(obj)
        return obj

    async def stored(self, row: Row, obj: Object) -> Object:
        """Return an object of a row's version in the stored form. Raises `ApiError` 500."""
        if row.custom is None:
            return obj
        storage = row.custom.storage
        wanted = storage.api_version
        if storage is row.custom:
            return {"apiVersion": wanted, **obj}
        converted = (await self._converted(row, [{"apiVersion": row.api_version, **copy.deepcopy(obj)}], wanted))[0]
        del converted["apiVersion"]
        storage.prune(converted)
        return {"apiVersion": wanted, **converted}

    async def between(self, row: Row, other: Row, obj: Object | None) -> Object | None:
        """Return an object of one row's version in the version of another row. Raises `ApiError` 500."""
        if obj is None or row.custom is None or row.api_version == other.api_version:
            return obj
        converted = (await self._converted(row, [{"apiVersion": row.api_version, **obj}], other.api_version))[0]
        return {key: value for key, value in converted.items() if key != "apiVersion"}

    async def _converted(self, row: Row, objects: list[Object], wanted: str) -> list[Object]:
        assert row.custom is not None
        webhook = row.custom.webhook
        if webhook is None:
            return objects
        kind = f"{objects[0].get('apiVersion')}, Kind={row.kind}"
        uid = str(uuid.uuid4())
        sent = [{"kind": row.kind, **obj} for obj in objects]
        versions = webhook.get("conversionReviewVersions") or ()
        version = next((name for name in versions if name in ("v1", "v1beta1")), "v1")
        review = {
            "kind": "ConversionReview",
            "apiVersion": f"apiextensions.k8s.io/{version}",
            "request": {"uid": uid, "desiredAPIVersion": wanted, "objects": sent},
        }
        try:
            answer = await self._client.post(webhook.get("clientConfig") or {}, review, _TIMEOUT)
            converted = _objects(answer, review)
        except CallError as error:
            raise _failed(f"conversion webhook for {kind} failed: {error}") from None
        if len(converted) != len(objects):
            raise _failed(f"conversion webhook for {kind} returned {len(converted)} objects, expected {len(objects)}")
        for index, (before, after) in enumerate(zip(sent, converted, strict=True)):
            if why := _fault(before, after, wanted):
                raise _failed(f"conversion webhook for {kind} returned invalid object at index {index}: {why}")
            after["metadata"] = _metadata(before["metadata"], after["metadata"])
            del after["kind"]
        return converted


def _encoded(api_version: str, obj: Object) -> bytes:
    obj.pop("apiVersion", None)
    return msgspec.json.encode({"apiVersion": api_version, **obj})


def _objects(answer: Object, review: Object) -> list[Object]:
    """Return the objects of a webhook's answer. Raises `CallError`."""
    response = answer.get("response")
    if not isinstance(response, dict):
        raise CallError("no response provided")
    if review["apiVersion"].endswith("/v1"):
        kind = f"{answer.get('apiVersion')}, Kind={answer.get('kind')}"
        wanted = f"{review['apiVersion']}, Kind=ConversionReview"
        if kind != wanted:
            raise CallError(f"expected webhook response of {wanted}, got {kind}")
        uid = review["request"]["uid"]
        if response.get("uid") != uid:
            raise CallError(f'expected response.uid="{uid}", got "{response.get("uid") or ""}"')
    result = response.get("result")
    if not isinstance(result, dict):
        result = {}
    if result.get("status") != "Success":
        raise CallError(
            result.get("message") or f"response.result.status was '{result.get('status') or ''}', not 'Success'"
        )
    converted = response.get("convertedObjects") or []
    if not isinstance(converted, list):
        raise CallError("convertedObjects is not a list")
    return converted


def _fault(before: Object, after: object, wanted: str) -> str:
    """Return the error of a converted object, or an empty string."""
    if not isinstance(after, dict) or not isinstance(after.get("metadata"), dict):
        return "missing metadata in converted object"
    if after.get("apiVersion") != wanted:
        return f"invalid groupVersion (expected {wanted}, received {after.get('apiVersion')})"
    if after.get("kind") != before["kind"]:
        return f"invalid kind (expected {before['kind']}, received {after.get('kind')})"
    for key, shown in (("name", "name"), ("namespace", "namespace"), ("uid", "UID")):
        one, other = before["metadata"].get(key) or "", after["metadata"].get(key) or ""
        if one != other:
            return f"must have the same {shown}: {one} != {other}"
    for key in _METADATA:
        texts = after["metadata"].get(key) or {}
        if not isinstance(texts, dict) or not all(isinstance(value, str) for value in texts.values()):
            return f"invalid metadata.{key} in converted object"
    return ""


def _metadata(before: Object, after: Object) -> Object:
    """Return the metadata of a converted object: a webhook may change labels and annotations only."""
    kept = {key: value for key, value in before.items() if key not in _METADATA}
    return kept | {key: after[key] for key in _METADATA if after.get(key)}


def _failed(why: str) -> ApiError:
    return ApiError(500, "", why)
