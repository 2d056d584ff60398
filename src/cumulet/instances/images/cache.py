"""The image cache: layers are downloaded once, shared by digest, and used only when they are complete.

A cached layer is used only after the image's registry confirmed access to it with the credentials of this pull. The
confirmation of a registry that a user names proves nothing: it can name the digest of a layer that it does not have. Such a
registry has to send the bytes once for each repository. The installation's own registry is trusted.
"""

from __future__ import annotations

import asyncio
import threading
import time
import weakref
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import aiohttp

from cumulet.common import digests
from cumulet.common.digests import Digest
from cumulet.instances.images.below import Below
from cumulet.instances.images.budget import Budget, LayerError
from cumulet.instances.images.handover import Handover, HandoverEndedError
from cumulet.instances.images.image_config import Execution
from cumulet.instances.images.layers import Known, Layers
from cumulet.instances.images.manifest import IMAGE_LIMIT
from cumulet.instances.images.reference import parse
from cumulet.instances.images.registry import Layer, Login, PullError, RegistryClient
from cumulet.instances.images.stacks import Layered, Stacks
from cumulet.instances.images.synchronizer import Synchronizer
from cumulet.instances.images.unpack import Unpacked, unpack

#: Concurrent downloads from one registry, and threads that unpack at the same time.
_AT_ONCE = 4
#: Concurrent downloads in all. Each has a thread, which waits most of the time.
_DOWNLOADS = 64
#: Characters of a reason that are kept.
_SHOWN = 1000


class Pulled(NamedTuple):
    """A pulled image: its configuration, the folders of its layers, the lowest first, its bytes in the registry, the
    seconds of the pull, and the device nodes that were left out: their number, and the path of the first."""

    digest: str
    config: Execution
    layers: list[Path]
    size: int
    seconds: float
    devices: int = 0
    first_device: str = ""


class Images:
    """Concurrent pulls of a layer from a repository share one download. `is_own` recognizes the own registry's names."""

    def __init__(self, folder: Path, session: aiohttp.ClientSession, is_own: Callable[[str], bool]) -> None:
        self._layers = Layers(folder)
        self._session = session
        self._is_own = is_own
        self._stacks = Stacks(self._layers)
        self._synchronizer = Synchronizer(self._layers)
        self._synchronizer.start()
        #: By repository, digest and form.
        self._running: dict[tuple[str, Digest, str], asyncio.Task[None]] = {}
        self._threads = ThreadPoolExecutor(_DOWNLOADS, "unpack")
        # A thread that waits for its registry does not count.
        self._working = threading.Semaphore(_AT_ONCE)
        # By registry, so that a slow one does not delay others.
        self._slots: weakref.WeakValueDictionary[str, asyncio.Semaphore] = weakref.WeakValueDictionary()

    async def pull(self, text: str, login: Login | None) -> Pulled:
        """Resolve an image at its registry, always, and download missing layers. Raises `PullError`."""
        began = time.monotonic()
        try:
            reference = parse(text)
            client = RegistryClient(self._session, reference, login)
            image = await client.resolve()
            pull = _Pull(
                client, self._is_own(reference.registry), self._slot(reference.registry), Budget(IMAGE_LIMIT)
            )
            layers = await asyncio.gather(*(self._layer(pull, layer) for layer in image.layers))
            stack = await self._stack(pull, image.layers, layers)
        except (aiohttp.ClientError, TimeoutError, OSError, LayerError, ValueError) as error:
            raise PullError((str(error) or type(error).__name__)[:_SHOWN]) from error
        size = sum(known.size for known in layers)
        if size > IMAGE_LIMIT:
            raise PullError(f"the image unpacks to {size} bytes, and an image may have {IMAGE_LIMIT}")
        devices = sum(known.devices for known in layers)
        first = next((known.first_device for known in layers if known.devices), "")
        seconds = time.monotonic() - began
        return Pulled(image.digest, image.config, stack, image.size, seconds, devices, first)

    def _slot(self, registry: str) -> asyncio.Semaphore:
        return self._slots.setdefault(registry, asyncio.Semaphore(_AT_ONCE))

    async def _layer(self, pull: _Pull, layer: Layer) -> Known:
        """Return a layer that these credentials may read. Raises `PullError`, `LayerError`, `aiohttp.ClientError`."""
        digest, repository = layer.blob.digest, pull.client.repository
        key = (repository, digest, "")
        if key in self._running or self._is_proven(pull, digest):
            # Another pull has proven this repository. Without access, the download below fails with the reason.
            if await pull.client.has(layer.blob):
                if running := self._running.get(key):
                    await asyncio.shield(running)
                return self._checked(layer)
            await self._fetch(pull, layer)
            return self._checked(layer)
        running = self._start(key, self._fetch(pull, layer))
        # The end of another group's pull must not end this one.
        await asyncio.shield(running)
        return self._checked(layer)

    def _is_proven(self, pull: _Pull, digest: Digest) -> bool:
        known = self._layers.find(digest)
        return known is not None and (pull.is_own or pull.client.repository in known.repositories)

    def _checked(self, layer: Layer) -> Known:
        known = self._layers.find(layer.blob.digest)
        if known is None:
            raise PullError(f"the layer {layer.blob.digest} was removed in the meantime")
        same = digests.algorithm(known.diff_id) == digests.algorithm(layer.diff_id)
        if known.diff_id != layer.diff_id:
            why = (
                f"the image's configuration has {layer.diff_id}"
                if same
                else "the image has its digest by another algorithm"
            )
            raise PullError(f"the layer {layer.blob.digest} unpacks to {known.diff_id}, but {why}")
        return known

    async def _fetch(self, pull: _Pull, layer: Layer) -> None:
        """Download a layer, and unpack it if it is not cached."""
        digest, repository = layer.blob.digest, pull.client.repository
        async with pull.slot:
            if self._layers.find(digest) is None:
                await self._add(pull, layer)
            else:
                # The layer is cached; the download proves that the repository has it.
                await pull.client.download(layer.blob, _discard)
                await asyncio.to_thread(self._layers.add_repository, digest, repository)

    async def _stack(self, pull: _Pull, layers: Sequence[Layer], known: Sequence[Known]) -> list[Path]:
        """Return the folders of an image, each layer in the form that fits those below it."""
        image = [Layered(layer.blob.digest, item) for layer, item in zip(layers, known, strict=True)]

        async def unpack_again(position: int, below: Below, form: str) -> None:
            layer = layers[position]
            key = (pull.client.repository, layer.blob.digest, form)
            if (running := self._running.get(key)) is None:
                running = self._start(key, self._add(pull, layer, below, form))
            await asyncio.shield(running)

        return await self._stacks.build(image, Budget(IMAGE_LIMIT), unpack_again)

    async def _add(self, pull: _Pull, layer: Layer, below: Below | None = None, form: str = "") -> None:
        """Download and unpack a layer, in a form if it is unpacked over those below it."""
        async with self._layers.work() as work:
            unpacked = await self._unpack(pull, layer, work, below)
            known = Known(
                layer.diff_id,
                unpacked.size,
                unpacked.needs,
                unpacked.devices,
                unpacked.first_device,
                [pull.client.repository],
            )
            await asyncio.to_thread(self._layers.add, layer.blob.digest, known, work, form)
        self._synchronizer.start()

    def _start(self, key: tuple[str, Digest, str], work: Coroutine[None, None, None]) -> asyncio.Task[None]:
        running = self._running[key] = asyncio.ensure_future(work)
        running.add_done_callback(lambda _: self._running.pop(key, None))
        return running

    async def _unpack(self, pull: _Pull, layer: Layer, root: Path, below: Below | None) -> Unpacked:
        """Download and unpack at the same time."""
        handover = Handover(self._working)
        loop = asyncio.get_running_loop()
        budget = pull.budget if below is None else Budget(IMAGE_LIMIT)
        unpacking = loop.run_in_executor(self._threads, handover.run, unpack, root, layer.diff_id, budget, below)
        unpacking.add_done_callback(lambda _: handover.reader_ended())
        try:
            await pull.client.download(layer.blob, handover.write)
            handover.close()
        except HandoverEndedError:
            pass  # the thread raises the reason
        except BaseException:
            handover.abort()
            await asyncio.gather(unpacking, return_exceptions=True)
            raise
        return await unpacking


class _Pull(NamedTuple):
    """One pull: the client, whether the registry is trusted, the registry's slots, and the limits of the image."""

    client: RegistryClient
    is_own: bool
    slot: asyncio.Semaphore
    budget: Budget


async def _discard(_: bytes) -> None:
    """Ignore a piece: only the digest of the download matters."""
