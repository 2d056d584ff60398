"""Which images the cache evicts: those that nothing uses, the least recently used first, and their layers with the last."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from cumulet.common import digests
from cumulet.common.digests import Digest
from cumulet.common.image_reference import parse
from cumulet.common.limits import ImageLimits
from cumulet.instances.images.eviction import Eviction, Selection
from cumulet.instances.images.image_config import Execution
from cumulet.instances.images.layers import Known, Layers
from cumulet.instances.images.records import ImageRecords, new_record

LIMITS = ImageLimits(cache_bytes=1000, high_threshold_percent=100, minimum_age=0, interval=0)


class Cache:
    """A cache with images of a few layers; `uses` and `pinned` are what the room would say."""

    def __init__(self, folder: Path, limits: ImageLimits = LIMITS) -> None:
        self.layers = Layers(folder)
        self.records = ImageRecords(folder)
        self.uses: dict[str, int] = {}
        self.pinned: set[Digest] = set()
        self.eviction = Eviction(folder, self.layers, self.records, limits, lambda: self.uses, lambda: self.pinned)

    def add_layer(self, name: str, size: int) -> Digest:
        """Add a layer, unless it is there."""
        digest = digests.of(name.encode())
        if self.layers.find(digest) is None:
            with self.layers.work_on_thread() as work:
                (work / "file").write_text(name)
                self.layers.add(digest, Known(digest, size), work)
        return digest

    async def add(self, name: str, layers: Iterable[tuple[str, int]], used: float) -> str:
        """Add an image that was used last at a time; return its id."""
        keys = [self.add_layer(*item) for item in layers]
        reference = parse(f"registry.test/{name}:1")
        record = new_record(reference, digests.of(name.encode()), keys, [], 1, None)
        await self.records.write(self.records.pulled(reference, record, Execution()))
        (file,) = [file for file in self.records._folder.iterdir() if record.digest.encode() in file.read_bytes()]
        os.utime(file, (used, used))
        return record.id

    def images(self) -> set[str]:
        """The names of the images that are left."""
        return {record.repository.rpartition("/")[2] for record in self.records}


def names(selection: Selection) -> list[str]:
    return [record.repository.rpartition("/")[2] for record in selection.images]


async def filled(folder: Path, limits: ImageLimits = LIMITS) -> Cache:
    """Images of 300, 400 and 500 bytes, of which two share a layer of 100; the oldest is in use. And a layer of no image."""
    cache = Cache(folder, limits)
    used = await cache.add("used", [("a", 300)], 1)
    await cache.add("older", [("shared", 100), ("b", 300)], 2)
    await cache.add("newer", [("shared", 100), ("c", 400)], 3)
    cache.add_layer("nobody's", 50)
    cache.uses = {used: 2}
    return cache


async def test_the_least_recently_used_image_goes_first(tmp_path: Path) -> None:
    cache = await filled(tmp_path)
    await cache.eviction.check()
    assert cache.images() == {"used", "newer"}
    # The shared layer stays for the other image; the layer of no image was not enough.
    assert cache.layers.find(digests.of(b"shared")) is not None
    assert cache.layers.find(digests.of(b"b")) is None
    assert cache.layers.find(digests.of(b"nobody's")) is None
    assert not cache.layers.path(digests.of(b"b")).exists()


async def test_all_unused_images_are_pruned_and_a_dry_run_deletes_none(tmp_path: Path) -> None:
    cache = await filled(tmp_path)
    found = await cache.eviction.prune(dry_run=True)
    assert (names(found), found.size) == (["older", "newer"], 100 + 300 + 400 + 50)
    assert cache.images() == {"used", "older", "newer"}
    assert (await cache.eviction.prune(dry_run=False)).size == found.size
    assert cache.images() == {"used"}
    assert cache.layers.find(digests.of(b"a")) is not None
    assert cache.records.find(parse("registry.test/older:1")) is None
    # The next start of the room finds the same.
    assert {record.repository for record in ImageRecords(tmp_path)} == {"registry.test/used"}


async def test_the_layers_of_running_pulls_stay(tmp_path: Path) -> None:
    cache = await filled(tmp_path)
    cache.pinned = {digests.of(b"c"), digests.of(b"nobody's")}
    await cache.eviction.prune(dry_run=False)
    assert all(cache.layers.find(digest) is not None for digest in cache.pinned)


async def test_layers_that_a_container_of_an_earlier_version_may_use_stay(tmp_path: Path) -> None:
    cache = await filled(tmp_path)
    cache.uses["registry.test/unknown@sha256:0"] = 1
    await cache.eviction.prune(dry_run=False)
    assert cache.layers.find(digests.of(b"nobody's")) is not None


async def test_young_images_stay_until_they_are_pruned(tmp_path: Path) -> None:
    cache = await filled(tmp_path, ImageLimits(cache_bytes=0, high_threshold_percent=0, low_threshold_percent=0))
    await cache.eviction.check()
    assert cache.images() == {"used", "older", "newer"}
    await cache.eviction.prune(dry_run=False)
    assert cache.images() == {"used"}
