"""What the config of an image says of its platform, read once."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import msgspec

from cumulet.common.digests import Digest
from cumulet.registry.catalog.store import Catalog, Manifest
from cumulet.registry.content.store import Content
from cumulet.registry.oci import names

#: A config that is larger is none that says this.
_CONFIG_LIMIT = 1024 * 1024
_REMEMBERED = 4096


class _Config(msgspec.Struct):
    architecture: str | None = None
    os: str | None = None


class Platforms:
    """Looks into configs; what they say never changes."""

    def __init__(self, catalog: Catalog, content: Content) -> None:
        self._catalog = catalog
        self._content = content
        self._known: OrderedDict[str, dict[str, str]] = OrderedDict()

    async def of(self, registry: str, repository: str, manifest: Manifest) -> dict[str, str]:
        """`architecture` and `os` of an image; nothing where it is another artifact."""
        document: dict[str, Any] = msgspec.json.decode(manifest.body)
        config = document.get("config")
        if not isinstance(config, dict) or "digest" not in config:
            return {}
        digest = names.digest(config["digest"])
        if digest not in self._known:
            blob = self._catalog.blob(registry, repository, digest)
            if blob is None or blob.size > _CONFIG_LIMIT:
                return {}
            self._known[digest] = await self._read(digest, blob.size)
            while len(self._known) > _REMEMBERED:
                self._known.popitem(last=False)
        return self._known[digest]

    async def _read(self, digest: Digest, size: int) -> dict[str, str]:
        text = b"".join([piece async for piece in self._content.read(digest, 0, size)])
        try:
            config = msgspec.json.decode(text, type=_Config)
        except (msgspec.DecodeError, RecursionError):
            return {}
        return {name: value for name, value in msgspec.structs.asdict(config).items() if value}
