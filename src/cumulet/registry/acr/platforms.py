"""The platform in the config of an image, cached by the config's digest."""

from __future__ import annotations

from collections import OrderedDict

import msgspec

from cumulet.common.digests import Digest
from cumulet.registry.acr.representations import Platform
from cumulet.registry.catalog import manifest_parser
from cumulet.registry.catalog.store import Catalog, Manifest
from cumulet.registry.content.store import Content
from cumulet.registry.oci import names

#: The largest config to read, in bytes. Real configs are smaller.
_CONFIG_LIMIT = 1024 * 1024
_REMEMBERED = 4096


class Platforms:
    """Reads configs. The content of a digest never changes, so that the cache stays valid."""

    def __init__(self, catalog: Catalog, content: Content) -> None:
        self._catalog = catalog
        self._content = content
        self._known: OrderedDict[str, Platform] = OrderedDict()

    async def of(self, registry: str, repository: str, manifest: Manifest) -> Platform:
        """The platform of an image, with empty fields for another artifact."""
        config = manifest_parser.document(manifest.body).config
        if config is None:
            return Platform()
        digest = names.digest(config.digest)
        if digest not in self._known:
            blob = self._catalog.blob(registry, repository, digest)
            if blob is None or blob.size > _CONFIG_LIMIT:
                return Platform()
            self._known[digest] = await self._read(digest, blob.size)
            while len(self._known) > _REMEMBERED:
                self._known.popitem(last=False)
        return self._known[digest]

    async def _read(self, digest: Digest, size: int) -> Platform:
        text = b"".join([piece async for piece in self._content.read(digest, 0, size)])
        try:
            return msgspec.json.decode(text, type=Platform)
        except (msgspec.DecodeError, RecursionError):
            return Platform()
