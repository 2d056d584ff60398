"""The limits of groups on the disk, and when the disk counts as nearly full."""

from __future__ import annotations

import asyncio
import os
import subprocess
from pathlib import Path

import pytest

from cumulet.common.limits import DiskLimits
from cumulet.instances.groups.disk_limits import Usage, binary, excess
from cumulet.instances.groups.disk_manager import DiskManager
from cumulet.instances.model.properties import Container, ContainerProperties, GroupProperties
from cumulet.instances.sandbox.deleted_files import deleted_files
from cumulet.instances.sandbox.disk_usage import measure


@pytest.mark.parametrize(
    ("size", "shown"),
    [(0, "0"), (1000, "1000"), (1024, "1Ki"), (1536, "1536"), (2 * 1024**3, "2Gi"), (1024**6, "1Ei")],
)
def test_sizes_are_quantities(size: int, shown: str) -> None:
    assert binary(size) == shown


def test_a_group_without_limits_has_the_one_of_the_installation() -> None:
    group = GroupProperties(containers=[Container(name="one", properties=ContainerProperties(image="x"))])
    assert excess(group, Usage({"one": 600}, {"v": 400}), 1000) is None
    message = excess(group, Usage({"one": 700}, {"v": 400}), 1024)
    assert message == "Pod ephemeral local storage usage exceeds the total limit of containers 1Ki. "


async def test_folders_are_measured_on_disk(tmp_path: Path) -> None:
    (tmp_path / "full" / "below").mkdir(parents=True)
    (tmp_path / "full" / "below" / "file\nname").write_bytes(b"x" * 100_000)
    (tmp_path / "empty").mkdir()
    found = await measure([tmp_path / "full", tmp_path / "empty", tmp_path / "absent"])
    assert found.keys() == {tmp_path / "full", tmp_path / "empty"}
    assert found[tmp_path / "full"] > 100_000 > found[tmp_path / "empty"]


def test_a_deleted_file_that_is_open_counts(tmp_path: Path) -> None:
    device, start = tmp_path.stat().st_dev, 1_878_000_000  # of nobody's
    with (tmp_path / "gone").open("wb") as file:
        file.write(b"x" * 1_000_000)
        file.flush()
        os.fsync(file.fileno())
        (tmp_path / "gone").unlink()
        with subprocess.Popen(["sleep", "60"], stdin=file, user=start + 5) as holder:
            assert deleted_files([start], [device])[start] >= 1_000_000
            assert deleted_files([start], [])[start] == 0
            holder.kill()
    assert deleted_files([start], [device])[start] == 0


@pytest.mark.parametrize(("least", "pressure"), [(1.0, True), (0.0, False)])
async def test_a_disk_below_its_threshold_is_under_pressure(tmp_path: Path, least: float, pressure: bool) -> None:
    manager = DiskManager(tmp_path, DiskLimits(nodefs_available=least, imagefs_available=0.0), list)
    running = asyncio.create_task(manager.run())
    await asyncio.sleep(0)
    async with asyncio.timeout(30):
        await manager.looked.wait()
    assert manager.pressure is pressure
    running.cancel()
