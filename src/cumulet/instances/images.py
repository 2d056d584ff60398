"""Images on this machine: pulled once, layers shared by digest, never used before they are whole."""

from __future__ import annotations

import asyncio
import shutil
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import aiohttp

from cumulet.instances.handover import Handover, HandoverEndedError
from cumulet.instances.pull import Image, Login, PullError, RegistryClient
from cumulet.instances.reference import parse
from cumulet.instances.unpack import LayerError, unpack

#: Bytes that an image may unpack to, which is ACI's limit.
_LIMIT = 15 * 1024**3
#: Layers that are downloaded and unpacked side by side.
_AT_ONCE = 4


class Pulled(NamedTuple):
    """An image that is there: its layers' folders, the lowest first, and how long it took to have it, in seconds."""

    digest: str
    config: dict[str, Any]
    layers: list[Path]
    size: int
    seconds: float


class Images:
    """Pulls of one layer at once are one pull."""

    def __init__(self, folder: Path, session: aiohttp.ClientSession) -> None:
        self._layers = folder / "layers"
        self._partial = folder / "partial"
        self._layers.mkdir(mode=0o700, parents=True, exist_ok=True)
        shutil.rmtree(self._partial, ignore_errors=True)  # what a crash left half unpacked
        self._partial.mkdir(mode=0o700)
        self._session = session
        self._running: dict[str, asyncio.Task[Path]] = {}
        # Threads of their own: one waits for its download, and must not keep others from working.
        self._threads = ThreadPoolExecutor(_AT_ONCE, "unpack")
        self._slots = asyncio.Semaphore(_AT_ONCE)

    async def pull(self, text: str, login: Login | None) -> Pulled:
        """Ask the registry for an image, always, and move the layers that are not here. Raises `PullError`."""
        began = time.monotonic()
        try:
            reference = parse(text)
        except ValueError as error:
            raise PullError(str(error)) from None
        client = RegistryClient(self._session, reference, login)
        try:
            image = await client.resolve()
            diff_ids = (image.config.get("rootfs") or {}).get("diff_ids") or []
            layers = await asyncio.gather(
                *(
                    self._layer(client, digest, diff_ids[index] if index < len(diff_ids) else None)
                    for index, (digest, _, _) in enumerate(image.layers)
                )
            )
        except (aiohttp.ClientError, TimeoutError, OSError, LayerError) as error:
            raise PullError(str(error) or type(error).__name__) from error
        return _pulled(image, layers, time.monotonic() - began)

    async def _layer(self, client: RegistryClient, digest: str, diff_id: str | None) -> Path:
        running = self._running.get(digest)
        if running is None:
            running = asyncio.ensure_future(self._fetch(client, digest, diff_id))
            self._running[digest] = running
            running.add_done_callback(lambda _: self._running.pop(digest, None))
        # Another group's pull that ends must not end this one.
        return await asyncio.shield(running)

    async def _fetch(self, client: RegistryClient, digest: str, diff_id: str | None) -> Path:
        target = self._layers / digest.replace(":", "-")
        if target.exists():
            return target
        async with self._slots:
            work = self._partial / str(uuid.uuid4())
            work.mkdir(mode=0o755)
            try:
                await self._unpack(client, digest, diff_id, work)
                work.rename(target)
            finally:
                await asyncio.to_thread(shutil.rmtree, work, ignore_errors=True)
        return target

    async def _unpack(self, client: RegistryClient, digest: str, diff_id: str | None, root: Path) -> None:
        """Download and unpack at the same time."""
        handover = Handover()
        loop = asyncio.get_running_loop()
        unpacking = loop.run_in_executor(self._threads, unpack, handover.read, root, diff_id, _LIMIT)
        unpacking.add_done_callback(lambda _: handover.reader_ended())
        try:
            await client.download(digest, handover.write)
            handover.close()
        except HandoverEndedError:
            pass  # why, the thread says
        except BaseException:
            handover.abort()
            await asyncio.gather(unpacking, return_exceptions=True)
            raise
        await unpacking


def _pulled(image: Image, layers: list[Path], seconds: float) -> Pulled:
    return Pulled(image.digest, image.config, layers, image.size, seconds)
