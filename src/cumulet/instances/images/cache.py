"""Images on this machine: pulled once, layers shared by digest, never used before they are whole.

A layer that is here is used for an image only after the image's registry was asked for it, with the credentials of this pull.
The word of a registry that a user names proves nothing: it may name the digest of a layer that it does not hold. It
has to send the bytes once for each repository. The installation's own registry is believed.
"""

from __future__ import annotations

import asyncio
import threading
import time
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import aiohttp

from cumulet.common import digests
from cumulet.common.digests import Digest
from cumulet.instances.images.handover import Handover, HandoverEndedError
from cumulet.instances.images.layers import Known, Layers
from cumulet.instances.images.manifest import IMAGE_LIMIT
from cumulet.instances.images.reference import parse
from cumulet.instances.images.registry import Layer, Login, PullError, RegistryClient
from cumulet.instances.images.unpack import Budget, LayerError, unpack

#: Layers that are downloaded and unpacked side by side from one registry, and threads that unpack at the same time.
_AT_ONCE = 4
#: Downloads in all: each has a thread, which mostly waits.
_DOWNLOADS = 64
#: Characters of a reason that are kept.
_SHOWN = 1000


class Pulled(NamedTuple):
    """An image that is there: its layers' folders, the lowest first, and how long it took to have it, in seconds."""

    digest: str
    config: dict[str, Any]
    layers: list[Path]
    size: int
    seconds: float


class Images:
    """Pulls of one layer from one repository at once are one pull. `is_own` tells the own registry's names."""

    def __init__(self, folder: Path, session: aiohttp.ClientSession, is_own: Callable[[str], bool]) -> None:
        self._layers = Layers(folder)
        self._session = session
        self._is_own = is_own
        self._running: dict[tuple[str, Digest], asyncio.Task[None]] = {}
        self._threads = ThreadPoolExecutor(_DOWNLOADS, "unpack")
        # A thread that waits for its registry keeps nobody from unpacking.
        self._working = threading.Semaphore(_AT_ONCE)
        # A registry that is slow keeps others from nothing.
        self._slots: weakref.WeakValueDictionary[str, asyncio.Semaphore] = weakref.WeakValueDictionary()

    async def pull(self, text: str, login: Login | None) -> Pulled:
        """Ask the registry for an image, always, and move the layers that are not here. Raises `PullError`."""
        began = time.monotonic()
        try:
            reference = parse(text)
            client = RegistryClient(self._session, reference, login)
            image = await client.resolve()
            pull = _Pull(
                client, self._is_own(reference.registry), self._slot(reference.registry), Budget(IMAGE_LIMIT)
            )
            layers = await asyncio.gather(*(self._layer(pull, layer) for layer in image.layers))
        except (aiohttp.ClientError, TimeoutError, OSError, LayerError, ValueError) as error:
            raise PullError((str(error) or type(error).__name__)[:_SHOWN]) from error
        size = sum(known.size for known in layers)
        if size > IMAGE_LIMIT:
            raise PullError(f"the image unpacks to {size} bytes, and an image may have {IMAGE_LIMIT}")
        paths = [self._layers.path(layer.blob.digest) for layer in image.layers]
        return Pulled(image.digest, image.config, paths, image.size, time.monotonic() - began)

    def _slot(self, registry: str) -> asyncio.Semaphore:
        return self._slots.setdefault(registry, asyncio.Semaphore(_AT_ONCE))

    async def _layer(self, pull: _Pull, layer: Layer) -> Known:
        """Have a layer that these credentials may have. Raises `PullError`, `LayerError`, `aiohttp.ClientError`."""
        digest, repository = layer.blob.digest, pull.client.repository
        key = (repository, digest)
        if key in self._running or self._is_proven(pull, digest):
            # Others have it from this repository. Where they may not have it, the download below says why.
            if await pull.client.has(layer.blob):
                if running := self._running.get(key):
                    await asyncio.shield(running)
                return self._checked(layer)
            await self._fetch(pull, layer)
            return self._checked(layer)
        running = asyncio.ensure_future(self._fetch(pull, layer))
        self._running[key] = running
        running.add_done_callback(lambda _: self._running.pop(key, None))
        # Another group's pull that ends must not end this one.
        await asyncio.shield(running)
        return self._checked(layer)

    def _is_proven(self, pull: _Pull, digest: Digest) -> bool:
        known = self._layers.find(digest)
        return known is not None and (pull.is_own or pull.client.repository in known.repositories)

    def _checked(self, layer: Layer) -> Known:
        known = self._layers.find(layer.blob.digest)
        if known is None:
            raise PullError(f"the layer {layer.blob.digest} was removed meanwhile")
        same = digests.algorithm(known.diff_id) == digests.algorithm(layer.diff_id)
        if known.diff_id != layer.diff_id:
            why = f"the image says {layer.diff_id}" if same else "the image has its digest by another algorithm"
            raise PullError(f"the layer {layer.blob.digest} unpacks to {known.diff_id}, and {why}")
        return known

    async def _fetch(self, pull: _Pull, layer: Layer) -> None:
        """Download a layer, and unpack it where it is not here."""
        digest, repository = layer.blob.digest, pull.client.repository
        async with pull.slot:
            if self._layers.find(digest) is None:
                async with self._layers.work() as work:
                    size = await self._unpack(pull, layer, work)
                    known = Known(layer.diff_id, size, [repository])
                    await asyncio.to_thread(self._layers.add, digest, known, work)
            else:
                # It is here, and the repository has not proven to hold it: its bytes do.
                await pull.client.download(layer.blob, _discard)
                await asyncio.to_thread(self._layers.add_repository, digest, repository)

    async def _unpack(self, pull: _Pull, layer: Layer, root: Path) -> int:
        """Download and unpack at the same time; the unpacked bytes."""
        handover = Handover(self._working)
        loop = asyncio.get_running_loop()
        unpacking = loop.run_in_executor(self._threads, handover.run, unpack, root, layer.diff_id, pull.budget)
        unpacking.add_done_callback(lambda _: handover.reader_ended())
        try:
            await pull.client.download(layer.blob, handover.write)
            handover.close()
        except HandoverEndedError:
            pass  # the thread says why
        except BaseException:
            handover.abort()
            await asyncio.gather(unpacking, return_exceptions=True)
            raise
        return await unpacking


class _Pull(NamedTuple):
    """One pull: who asks, whether the registry's word is enough, whose turn it is, and what the image may take."""

    client: RegistryClient
    is_own: bool
    slot: asyncio.Semaphore
    budget: Budget


async def _discard(_: bytes) -> None:
    """The digest is all that is of interest."""
