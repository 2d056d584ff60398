"""Evicts images that nothing uses, the least recently used first, as a kubelet does.

The thresholds are a kubelet's: above `high_threshold_percent` of the disk, images are deleted until it is at
`low_threshold_percent`. A layer is deleted with the last image that has it. Layers of no image, such as those of a pull that
failed, go first.
"""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import time
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import NamedTuple

from cumulet.common.digests import Digest
from cumulet.common.limits import ImageLimits
from cumulet.common.tasks import wait_for
from cumulet.instances.images.layers import FORMER, Footprint, Layers
from cumulet.instances.images.records import ImageRecord, ImageRecords

log = logging.getLogger(__name__)

#: Seconds between two checks after pulls.
_PAUSE = 10.0

#: The images that container groups use, by id, with the number of groups.
Uses = Mapping[str, int]


class Selection(NamedTuple):
    """What an eviction deletes: images, layers, and their bytes on disk."""

    images: list[ImageRecord]
    layers: list[Digest]
    size: int


class Eviction:
    """`uses` returns the images in use, and `pinned` the layers of pulls that run."""

    def __init__(
        self,
        folder: Path,
        layers: Layers,
        records: ImageRecords,
        limits: ImageLimits,
        uses: Callable[[], Uses],
        pinned: Callable[[], Collection[Digest]],
    ) -> None:
        self._folder = folder
        self._layers = layers
        self._records = records
        self._limits = limits
        self._uses = uses
        self._pinned = pinned
        self._has_pulled = asyncio.Event()

    def pulled(self) -> None:
        """Check the disk soon: a layer was added."""
        self._has_pulled.set()

    async def run(self) -> None:
        """Check the disk regularly, and after pulls, until cancelled."""
        while True:
            self._has_pulled.clear()
            try:
                await self.check()
            except OSError as error:
                log.warning("the disk of images cannot be checked: %s", error)
            await asyncio.sleep(_PAUSE)
            await wait_for(self._has_pulled, max(self._limits.interval - _PAUSE, 0))

    async def prune(self, *, dry_run: bool) -> Selection:
        """Delete all images that nothing uses, and return them; with `dry_run`, only return them. Raises `OSError`."""
        sizes = await asyncio.to_thread(self._layers.sizes)
        selection = self._select(sizes, None, 0.0)
        if not dry_run:
            await self._delete(selection)
        return selection

    async def sizes(self) -> dict[str, int]:
        """Return the bytes of each image on disk, by id. Images can share layers."""
        layers = await asyncio.to_thread(self._layers.sizes)
        return {
            record.id: sum(layers[digest].size for digest in set(record.layers) if digest in layers)
            for record in self._records
        }

    async def check(self) -> None:
        """Evict as much as the disk and the bound of the cache demand. Raises `OSError`."""
        sizes = await asyncio.to_thread(self._layers.sizes)
        disk = os.statvfs(self._folder)
        capacity, available = disk.f_blocks * disk.f_frsize, disk.f_bavail * disk.f_frsize
        wanted = 0
        if capacity and 100 - available * 100 // capacity >= self._limits.high_threshold_percent:
            wanted = capacity * (100 - self._limits.low_threshold_percent) // 100 - available
        if self._limits.cache_bytes is not None:
            wanted = max(wanted, sum(item.size for item in sizes.values()) - self._limits.cache_bytes)
        if wanted <= 0:
            return
        selection = self._select(sizes, wanted, self._limits.minimum_age)
        if selection.layers or selection.images:
            names = ", ".join(record.id for record in selection.images)
            log.info("evicting %d bytes of images: %s", selection.size, names or "layers of no image")
        await self._delete(selection)
        if selection.size < wanted:
            log.warning(
                "Failed to garbage collect required amount of images. Attempted to free %d bytes, but only found %d bytes "
                "eligible to free.",
                wanted,
                selection.size,
            )

    def _select(self, sizes: Mapping[Digest, Footprint], wanted: int | None, minimum_age: float) -> Selection:
        """Select images and layers of `wanted` bytes, or all; the images in use and those that are younger are kept."""
        uses, pinned = self._uses(), set(self._pinned())
        newest = time.time() - minimum_age
        references = Counter(digest for record in self._records for digest in set(record.layers))
        selection = Selection([], [], 0)

        def add(digest: Digest) -> None:
            nonlocal selection
            if digest in sizes and digest not in pinned:
                selection.layers.append(digest)
                selection = selection._replace(size=selection.size + sizes[digest].size)

        def is_enough() -> bool:
            return wanted is not None and selection.size >= wanted

        # A container of an earlier version uses layers that no record names.
        if all(self._records.get(image_id) is not None for image_id in uses):
            for digest in sizes.keys() - references.keys():
                if not is_enough() and sizes[digest].added <= newest:
                    add(digest)
        unused = [record for record in self._records if record.id not in uses and record.pulled <= newest]
        for record in sorted(unused, key=self._records.last_used):
            if is_enough():
                break
            selection.images.append(record)
            for digest in set(record.layers):
                references[digest] -= 1
                if not references[digest]:
                    add(digest)
        return selection

    async def _delete(self, selection: Selection) -> None:
        """Delete at once for everybody else; the files follow on a thread. Nothing waits after the selection. Raises `OSError`."""
        folders = []
        for record in selection.images:
            self._records.remove(record)
        for digest in selection.layers:
            folders += self._layers.detach(digest)
        if all(self._records.get(image_id) is not None for image_id in self._uses()):
            folders += [self._folder / name for name in FORMER]
        await asyncio.to_thread(_remove, folders)


def _remove(folders: list[Path]) -> None:
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)
