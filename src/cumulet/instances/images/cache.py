"""The image cache: layers are downloaded once, shared by digest, and used only when they are complete.

A pull uses a cached layer only after the image's registry confirmed access to it with the credentials of this pull. The
confirmation of a registry that a user names proves nothing: it can name the digest of a layer that it does not have. Such a
registry has to send the bytes once for each repository. The installation's own registry is trusted. `cached` returns an image
without asking its registry, to those who could pull it before (`images.records`).
"""

from __future__ import annotations

import asyncio
import errno
import logging
import threading
import time
import weakref
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import aiohttp

from cumulet.common import digests
from cumulet.common.digests import Digest
from cumulet.common.image_reference import Reference
from cumulet.common.limits import ImageLimits
from cumulet.instances.images.below import Below
from cumulet.instances.images.budget import Budget, LayerError
from cumulet.instances.images.errors import Fault, PullError
from cumulet.instances.images.eviction import Eviction, Uses
from cumulet.instances.images.handover import Handover, HandoverEndedError
from cumulet.instances.images.image_config import Execution
from cumulet.instances.images.layers import Known, Layers
from cumulet.instances.images.manifest import IMAGE_LIMIT
from cumulet.instances.images.progress import LayerProgress, Progress
from cumulet.instances.images.records import ImageRecord, ImageRecords, Subject, new_record
from cumulet.instances.images.registry import Layer, Login, RegistryClient
from cumulet.instances.images.stacks import Layered, Stacks
from cumulet.instances.images.synchronizer import Synchronizer
from cumulet.instances.images.unpack import Unpacked, unpack

log = logging.getLogger(__name__)

#: Concurrent downloads from one registry, and threads that unpack at the same time.
_AT_ONCE = 4
#: Concurrent downloads in all. Each has a thread, which waits most of the time.
_DOWNLOADS = 64
#: Characters of a reason that are kept.
_SHOWN = 1000


class Pulled(NamedTuple):
    """A pulled image: its id, its configuration, and the folders of its layers, the lowest first.

    `size` is its bytes in the registry, and `seconds` the time of the pull. `platform` is its platform if it is not this
    machine's. `devices` is the number of device nodes that were left out, and `first_device` the path of the first.
    """

    id: str
    config: Execution
    layers: list[Path]
    size: int
    seconds: float
    platform: str | None
    devices: int = 0
    first_device: str = ""


class Images:
    """Concurrent pulls of a layer from a repository share one download.

    `is_own` recognizes the own registry's names, and `uses` returns the images of container groups.
    """

    def __init__(
        self,
        folder: Path,
        session: aiohttp.ClientSession,
        is_own: Callable[[str], bool],
        limits: ImageLimits,
        uses: Callable[[], Uses],
    ) -> None:
        self._layers = Layers(folder)
        self.records = ImageRecords(folder)
        self.eviction = Eviction(folder, self._layers, self.records, limits, uses, lambda: self._pinned)
        self._session = session
        self._is_own = is_own
        self._stacks = Stacks(self._layers)
        self._synchronizer = Synchronizer(self._layers)
        self._synchronizer.start()
        #: By repository, digest and form.
        self._running: dict[tuple[str, Digest, str], tuple[asyncio.Task[None], LayerProgress]] = {}
        self._pulls: list[Progress] = []
        self._pinned: Counter[Digest] = Counter()
        self._writes: set[asyncio.Task[None]] = set()
        self._changed = asyncio.Event()
        self._threads = ThreadPoolExecutor(_DOWNLOADS, "unpack")
        # A thread that waits for its registry does not count.
        self._working = threading.Semaphore(_AT_ONCE)
        # By registry, so that a slow one does not delay others.
        self._slots: weakref.WeakValueDictionary[str, asyncio.Semaphore] = weakref.WeakValueDictionary()

    @property
    def pulls(self) -> list[Progress]:
        """The pulls that run now."""
        return list(self._pulls)

    @property
    def changed(self) -> asyncio.Event:
        """The event of the next pull that ends."""
        return self._changed

    def find(self, reference: Reference) -> ImageRecord | None:
        """Return the image that a reference named at its last pull, if all its layers are here."""
        record = self.records.find(reference)
        if record is None or any(self._layers.find(digest) is None for digest in record.layers):
            return None
        return record if all(self._layers.named(name).is_dir() for name in record.stack) else None

    def cached(self, reference: Reference, subjects: Sequence[Subject]) -> Pulled | None:
        """Return an image that is here, without asking its registry, if it was pulled with a credential of one of these.

        An image that its registry gave without credentials is for everybody.
        """
        record = self.find(reference)
        if record is None:
            return None
        mine = (self.records.access_of(reference.registry, subject) for subject in subjects)
        if not record.public and not any(access in record.access for access in mine):
            return None
        config = self.records.configuration(record)
        if config is None:
            return None
        self.records.use(record)
        stack = [self._layers.named(name) for name in record.stack]
        return Pulled(record.id, config, stack, record.size, 0.0, record.platform)

    async def pull(
        self, reference: Reference, login: Login | None, subject: Subject | None, progress: Progress
    ) -> Pulled:
        """Resolve an image at its registry, always, and download missing layers. Raises `PullError`."""
        began = time.monotonic()
        self._pulls.append(progress)
        try:
            client = RegistryClient(self._session, reference, login)
            image = await client.resolve()
            with self._pin(image.layers):
                pull = _Pull(
                    client,
                    self._is_own(reference.registry),
                    self._slot(reference.registry),
                    Budget(IMAGE_LIMIT),
                    progress,
                )
                followed = [LayerProgress(layer.blob.size) for layer in image.layers]
                for item in followed:
                    progress.add(item)
                layers = await asyncio.gather(
                    *(self._layer(pull, layer, item) for layer, item in zip(image.layers, followed, strict=True))
                )
                size = sum(known.size for known in layers)
                if size > IMAGE_LIMIT:
                    raise PullError(
                        f"the image unpacks to {size} bytes, and an image may have {IMAGE_LIMIT}", Fault.LIMIT
                    )
                stack = await self._stack(pull, image.layers, layers)
                # Nothing waits from here to the record, so that no layer is evicted.
                keys = [layer.blob.digest for layer in image.layers]
                names = [folder.name for folder in stack]
                record = new_record(reference, image.digest, keys, names, image.size, image.platform)
                if subject is not None and client.has_logged_in:
                    record.access = [self.records.access_of(reference.registry, subject)]
                else:
                    record.public = True
                self._write(self.records.pulled(reference, record, image.config))
                devices = sum(known.devices for known in layers)
                first = next((known.first_device for known in layers if known.devices), "")
                seconds = time.monotonic() - began
                return Pulled(record.id, image.config, stack, image.size, seconds, image.platform, devices, first)
        except PullError as error:
            raise PullError(str(error)[:_SHOWN], error.fault) from error
        except (aiohttp.ClientError, TimeoutError, OSError, LayerError, ValueError) as error:
            fault = _fault(error)
            if fault is Fault.STORAGE:
                self.eviction.pulled()  # there may be no space
            raise PullError((str(error) or type(error).__name__)[:_SHOWN], fault) from error
        finally:
            self._pulls.remove(progress)
            self._changed.set()
            self._changed = asyncio.Event()

    def _write(self, changed: list[ImageRecord]) -> None:
        """Write records in the background: a container does not wait for them."""
        if changed:
            task = asyncio.ensure_future(self.records.write(changed))
            self._writes.add(task)
            task.add_done_callback(self._written)

    def _written(self, task: asyncio.Task[None]) -> None:
        self._writes.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.warning("the record of an image cannot be written: %s", error)

    @contextmanager
    def _pin(self, layers: Sequence[Layer]) -> Iterator[None]:
        """Keep layers from eviction."""
        keys = [layer.blob.digest for layer in layers]
        self._pinned.update(keys)
        try:
            yield
        finally:
            self._pinned.subtract(keys)
            self._pinned += Counter()  # without those that nothing pins

    def _slot(self, registry: str) -> asyncio.Semaphore:
        return self._slots.setdefault(registry, asyncio.Semaphore(_AT_ONCE))

    async def _layer(self, pull: _Pull, layer: Layer, progress: LayerProgress) -> Known:
        """Return a layer that these credentials may read. Raises `PullError`, `LayerError`, `aiohttp.ClientError`."""
        digest, repository = layer.blob.digest, pull.client.repository
        key = (repository, digest, "")
        if key in self._running or self._is_proven(pull, digest):
            # Another pull has proven this repository. Without access, the download below fails with the reason.
            if await pull.client.has(layer.blob):
                if (running := self._running.get(key)) is not None:
                    task, shared = running
                    pull.progress.replace(progress, shared)
                    await asyncio.shield(task)
                progress.finish()
                return self._checked(layer)
            await self._fetch(pull, layer, progress)
            return self._checked(layer)
        task = self._start(key, self._fetch(pull, layer, progress), progress)
        # The end of another group's pull must not end this one.
        await asyncio.shield(task)
        return self._checked(layer)

    def _is_proven(self, pull: _Pull, digest: Digest) -> bool:
        known = self._layers.find(digest)
        return known is not None and (pull.is_own or pull.client.repository in known.repositories)

    def _checked(self, layer: Layer) -> Known:
        known = self._layers.find(layer.blob.digest)
        if known is None:
            raise PullError(f"the layer {layer.blob.digest} was removed in the meantime", Fault.INTERRUPTED)
        same = digests.algorithm(known.diff_id) == digests.algorithm(layer.diff_id)
        if known.diff_id != layer.diff_id:
            why = (
                f"the image's configuration has {layer.diff_id}"
                if same
                else "the image has its digest by another algorithm"
            )
            raise PullError(f"the layer {layer.blob.digest} unpacks to {known.diff_id}, but {why}", Fault.CORRUPT)
        return known

    async def _fetch(self, pull: _Pull, layer: Layer, progress: LayerProgress) -> None:
        """Download a layer, and unpack it if it is not cached."""
        digest, repository = layer.blob.digest, pull.client.repository
        async with pull.slot:
            if self._layers.find(digest) is None:
                await self._add(pull, layer, progress)
            else:
                # The layer is cached; the download proves that the repository has it.
                await pull.client.download(layer.blob, _counted(_discard, progress))
                await asyncio.to_thread(self._layers.add_repository, digest, repository)
        progress.finish()

    async def _stack(self, pull: _Pull, layers: Sequence[Layer], known: Sequence[Known]) -> list[Path]:
        """Return the folders of an image, each layer in the form that fits those below it."""
        image = [Layered(layer.blob.digest, item) for layer, item in zip(layers, known, strict=True)]

        async def unpack_again(position: int, below: Below, form: str) -> None:
            layer = layers[position]
            key = (pull.client.repository, layer.blob.digest, form)
            if (running := self._running.get(key)) is not None:
                task, _ = running
            else:
                progress = LayerProgress(layer.blob.size)
                task = self._start(key, self._add(pull, layer, progress, below, form), progress)
            await asyncio.shield(task)

        stack = await self._stacks.build(image, Budget(IMAGE_LIMIT), unpack_again)
        self._synchronizer.start()  # there may be new patches
        return stack

    async def _add(
        self, pull: _Pull, layer: Layer, progress: LayerProgress, below: Below | None = None, form: str = ""
    ) -> None:
        """Download and unpack a layer, in a form if it is unpacked over those below it."""
        async with self._layers.work() as work:
            unpacked = await self._unpack(pull, layer, work, progress, below)
            known = Known(
                layer.diff_id,
                unpacked.size,
                unpacked.needs,
                unpacked.devices,
                unpacked.first_device,
                [pull.client.repository],
            )
            await asyncio.to_thread(self._layers.add, layer.blob.digest, known, work, form)
        self.eviction.pulled()
        self._synchronizer.start()

    def _start(
        self, key: tuple[str, Digest, str], work: Coroutine[None, None, None], progress: LayerProgress
    ) -> asyncio.Task[None]:
        task = asyncio.ensure_future(work)
        self._running[key] = task, progress
        task.add_done_callback(lambda _: self._running.pop(key, None))
        return task

    async def _unpack(
        self, pull: _Pull, layer: Layer, root: Path, progress: LayerProgress, below: Below | None
    ) -> Unpacked:
        """Download and unpack at the same time."""
        handover = Handover(self._working)
        loop = asyncio.get_running_loop()
        budget = pull.budget if below is None else Budget(IMAGE_LIMIT)
        unpacking = loop.run_in_executor(self._threads, handover.run, unpack, root, layer.diff_id, budget, below)
        unpacking.add_done_callback(lambda _: handover.reader_ended())
        try:
            await pull.client.download(layer.blob, _counted(handover.write, progress))
            handover.close()
        except HandoverEndedError:
            pass  # the thread raises the reason
        except BaseException:
            handover.abort()
            await asyncio.gather(unpacking, return_exceptions=True)
            raise
        return await unpacking


class _Pull(NamedTuple):
    """One pull: the client, whether the registry is trusted, the registry's slots, the limits of the image, and its progress."""

    client: RegistryClient
    is_own: bool
    slot: asyncio.Semaphore
    budget: Budget
    progress: Progress


def _counted(
    write: Callable[[bytes], Awaitable[None]], progress: LayerProgress
) -> Callable[[bytes], Awaitable[None]]:
    """Return `write`, which counts the bytes."""

    async def counted(piece: bytes) -> None:
        await write(piece)
        progress.received += len(piece)

    return counted


async def _discard(_: bytes) -> None:
    """Ignore a piece: only the digest of the download matters."""


def _fault(error: Exception) -> Fault:
    """Return the kind of a failure that is not the registry's answer."""
    if isinstance(error, LayerError):
        return error.fault
    if isinstance(error, (aiohttp.ClientPayloadError, aiohttp.ClientConnectionError, TimeoutError)):
        return Fault.INTERRUPTED
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO):
        return Fault.STORAGE
    return Fault.OTHER
