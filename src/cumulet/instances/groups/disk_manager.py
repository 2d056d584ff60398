"""Watches over the disk: evicts groups that exceed their limits, and the largest ones while the disk is nearly full.

The kubelet's eviction manager does the same every 10 s. Where nothing was written since the last look, nothing is measured.
Groups are measured many at a time. One with so many files that this takes long is measured apart, so that others do not wait.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from cumulet.common.limits import DiskLimits
from cumulet.common.tasks import TaskSet, task_set
from cumulet.instances.groups.disk_limits import Usage, binary, excess, requested
from cumulet.instances.groups.group import Group
from cumulet.instances.sandbox.deleted_files import deleted_files
from cumulet.instances.sandbox.disk_usage import FileSystem, file_system, measure

log = logging.getLogger(__name__)

#: Seconds between two measurements, and between two looks at the free space of the file system.
_PERIOD, _LOOK = 10.0, 1.0
#: A measurement is made at once when this part of the free space was used since the last.
_QUICK = 64 * 1024**2
#: Groups that are measured at a time, and the seconds after which they are measured apart.
_BATCH, _LONG = 32, 5.0
#: Seconds for which the disk counts as nearly full after it was (`evictionPressureTransitionPeriod`).
_TRANSITION = 300.0


class DiskManager:
    """The disk of an installation, in whose `folder` everything is written."""

    def __init__(self, folder: Path, limits: DiskLimits, groups: Callable[[], Iterable[Group]]) -> None:
        self._folder = folder
        self._limits = limits
        self._groups = groups
        self._full_until = 0.0
        self._was_full = False
        #: What groups used when they were measured last, those whose measurement takes long, and those being measured.
        self._usages: dict[Group, Usage] = {}
        self._slow: set[Group] = set()
        self._measured: set[Group] = set()
        #: Whether the disk is nearly full (the node's condition `DiskPressure`).
        self.pressure = False
        #: Set after the first look.
        self.looked = asyncio.Event()

    async def run(self) -> None:
        """Watch until cancelled."""
        loop = asyncio.get_running_loop()
        last: FileSystem | None = None
        at = 0.0
        async with task_set() as tasks:
            while True:
                await asyncio.sleep(_LOOK)
                now = await asyncio.to_thread(file_system, self._folder)
                filling = last is not None and last.available - now.available > _QUICK
                if loop.time() - at < _PERIOD and not filling:
                    continue
                full = self._is_full(now)
                if now != last or full:
                    await self._measure(tasks)
                last, at = now, loop.time()
                # As in a kubelet, unused images go first.
                if full and self._was_full:
                    await self._evict_largest(now)
                self._was_full = full
                self._set_pressure(full, loop.time())
                self.looked.set()

    def _is_full(self, now: FileSystem) -> bool:
        return (
            now.share < max(self._limits.nodefs_available, self._limits.imagefs_available)
            or now.share_of_files < self._limits.nodefs_inodes_free
        )

    def _set_pressure(self, full: bool, time: float) -> None:
        if full:
            self._full_until = time + _TRANSITION
        pressure = full or time < self._full_until
        if pressure is not self.pressure:
            self.pressure = pressure
            log.warning("disk pressure: %s", pressure)

    async def _measure(self, tasks: TaskSet) -> None:
        """Measure all groups that run, and wait for those that are measured quickly."""
        groups = {group for group in self._groups() if group.is_evictable}
        self._slow &= groups
        self._usages = {group: usage for group, usage in self._usages.items() if group in groups}
        waiting = groups - self._measured
        quick = [group for group in waiting if group not in self._slow]
        batches = [quick[at : at + _BATCH] for at in range(0, len(quick), _BATCH)]
        batches += [[group] for group in waiting & self._slow]
        started = [tasks.start(self._measure_batch(batch), "disk usage") for batch in batches]
        if started:
            await asyncio.wait(started, timeout=_LONG)

    async def _measure_batch(self, groups: Sequence[Group]) -> None:
        """Measure some groups, and evict those that exceed a limit of theirs."""
        self._measured.update(groups)
        loop = asyncio.get_running_loop()
        began = loop.time()
        try:
            places = {group: group.disk_places() for group in groups}
            folders = [
                path for place in places.values() for path in (*place.layers.values(), *place.volumes.values())
            ]
            sizes = await measure(folders)
            logs = await asyncio.to_thread(
                lambda: [{name: files.size() for name, files in place.logs.items()} for place in places.values()]
            )
        finally:
            self._measured.difference_update(groups)
        if loop.time() - began > _LONG:
            self._slow.update(groups)
        for (group, place), written in zip(places.items(), logs, strict=True):
            self._usages[group] = usage = Usage(
                {name: sizes.get(path, 0) + written[name] for name, path in place.layers.items()},
                {name: sizes.get(path, 0) for name, path in place.volumes.items()},
            )
            message = excess(group.record.properties, usage, self._limits.group)
            if message is not None and group.is_evictable:
                group.evict(message)

    async def _evict_largest(self, now: FileSystem) -> None:
        """Evict the group that uses most of what it has not requested."""
        starts = {group.record.status.ids for group in self._usages if group.record.status.ids}
        deleted = await asyncio.to_thread(deleted_files, starts, self._devices())
        left = [group for group in self._usages if group.is_evictable]
        if not left:
            return

        def beyond(group: Group) -> int:
            held = deleted.get(group.record.status.ids, 0)
            return self._usages[group].total + held - requested(group.record.properties)

        largest = max(left, key=beyond)
        name, used = max(self._usages[largest].containers.items(), key=lambda item: item[1], default=("", 0))
        request = requested(largest.record.properties)
        largest.evict(
            f"The node was low on resource: {self._lacking(now)}. "
            f"Container {name} was using {binary(-(-used // 1024) * 1024)}, request is {binary(request)}, has larger "
            "consumption of ephemeral-storage. "
        )

    def _devices(self) -> set[int]:
        """Return the devices of the disk: its own, and those of the containers' roots."""
        paths = [self._folder, *(root for group in self._usages for root in group.disk_places().roots)]
        devices = set()
        for path in paths:
            with contextlib.suppress(OSError):
                devices.add(path.stat().st_dev)
        return devices

    def _lacking(self, now: FileSystem) -> str:
        """Return what is lacking, with the kubelet's threshold and what is left."""
        share = max(self._limits.nodefs_available, self._limits.imagefs_available)
        if now.share < share:
            left = binary(now.available // 1024 * 1024)
            return f"ephemeral-storage. Threshold quantity: {int(now.size * share)}, available: {left}"
        threshold = int(now.files * self._limits.nodefs_inodes_free)
        return f"inodes. Threshold quantity: {threshold}, available: {now.free_files}"
