"""The images on this machine: `cachedImages` of a region, and their deletion.

Extensions to ACI's API: the properties of a cached image other than `osType` and `image`, the running pulls, and
`pruneCachedImages`, which deletes the images that no container group uses (`dryRun` only lists them).
"""

from __future__ import annotations

import time
from datetime import UTC, datetime

import msgspec
from aiohttp import web

from cumulet.common import clock
from cumulet.common.arm import ArmError, fixed, json_response, read_json
from cumulet.common.kubernetes.objects import Object
from cumulet.instances.groups.collection import Groups
from cumulet.instances.images.records import ImageRecord


class _Prune(msgspec.Struct, rename="camel", forbid_unknown_fields=True):
    dry_run: bool = False


class CachedImages:
    """Serves the images as a part of a region."""

    def __init__(self, groups: Groups) -> None:
        self._groups = groups
        self._images = groups.images

    def routes(self, location: str) -> list[web.RouteDef]:
        """Return the routes below the path of a region."""
        return [
            web.get(f"{location}/{fixed('cachedImages', 'verb')}", self._list),
            web.post(f"{location}/{fixed('pruneCachedImages', 'verb')}", self._prune),
        ]

    async def _list(self, request: web.Request) -> web.Response:
        sizes, uses = await self._images.eviction.sizes(), self._groups.index.image_uses()
        records = sorted(self._images.records, key=self._images.records.last_used, reverse=True)
        value = [
            {**image, "groups": uses.get(record.id, 0)} for record in records for image in self._shown(record, sizes)
        ]
        pulls = [
            {
                "image": pull.image,
                "layers": pull.layers_done,
                "layersTotal": pull.layers,
                "bytes": pull.received,
                "bytesTotal": pull.size,
                "seconds": round(time.monotonic() - pull.began, 1),
            }
            for pull in self._images.pulls
        ]
        return json_response({"value": value, "pulls": pulls})

    async def _prune(self, request: web.Request) -> web.Response:
        try:
            options = msgspec.convert(await read_json(request), _Prune)
        except msgspec.ValidationError as error:
            raise ArmError(400, "InvalidRequestContent", f"The request content was invalid: {error}") from None
        sizes = await self._images.eviction.sizes()
        selection = await self._images.eviction.prune(dry_run=options.dry_run)
        value = [image for record in selection.images for image in self._shown(record, sizes)]
        return json_response({"value": value, "dryRun": options.dry_run, "spaceReclaimed": selection.size})

    def _shown(self, record: ImageRecord, sizes: dict[str, int]) -> list[Object]:
        """Return an image once for each of its tags, or by its digest alone."""
        names = [f"{record.repository}:{tag}" for tag in record.tags] or [record.id]
        used = datetime.fromtimestamp(self._images.records.last_used(record), UTC)
        return [
            {
                "osType": "Linux",
                "image": name,
                "digest": record.digest,
                "size": sizes.get(record.id, 0),
                "lastUsed": clock.rfc3339(used),
            }
            for name in names
        ]
