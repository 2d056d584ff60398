"""No two groups of a machine have an id in common, and none has one that is given to a user."""

from __future__ import annotations

from pathlib import Path

import pytest

from cumulet.common.config import DEFAULT_PORTS, Config
from cumulet.instances.sandbox import id_ranges
from cumulet.instances.sandbox.errors import SandboxError
from cumulet.instances.sandbox.id_ranges import IDS, IdRanges, release_all
from cumulet.up.install import install


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine of its own: who holds what, and which ids are given to users."""
    monkeypatch.setattr(id_ranges, "_HELD", tmp_path / "run" / "ids")
    monkeypatch.setattr(id_ranges, "_SUBORDINATE", (tmp_path / "subuid", tmp_path / "subgid"))
    return tmp_path


def installation(folder: Path) -> Config:
    """An installation in a folder."""
    return install(folder, ports=dict.fromkeys(DEFAULT_PORTS, 0))


def test_a_range_is_one_groups(machine: Path) -> None:
    config = installation(machine / "a")
    ranges, others = IdRanges(config), IdRanges(installation(machine / "b"))
    found = [ranges.allocate(0) for _ in range(50)] + [others.allocate(0) for _ in range(50)]
    assert len({start // IDS for start in found}) == 100
    assert all(start % IDS == 0 and 0x7000_0000 <= start < 0x7FFE_0000 for start in found)
    assert others.allocate(found[0]) != found[0], "another installation has it"
    assert ranges.allocate(found[0]) != found[0], "another group has it"
    ranges.release(found[0])
    assert ranges.allocate(found[0]) == found[0], "a group has the one that it had"
    again = IdRanges(config)
    again.open(found[:50])
    assert not {again.allocate(0) for _ in range(50)} & set(found)


def test_ids_of_users_are_left_out(machine: Path) -> None:
    config = installation(machine / "a")
    start = IdRanges(config).allocate(0)
    release_all(config)
    (machine / "subuid").write_text(f"# comment\nuser:{start + IDS - 1}:1\nbroken\nother:x:1\n")
    (machine / "subgid").write_text(f"user:{start + IDS}:{2 * IDS}\n")
    assert IdRanges(config).allocate(0) == start + 3 * IDS
    (machine / "subgid").write_text(f"user:0:{2**31}\n")
    with pytest.raises(SandboxError, match="no range of user ids is left"):
        IdRanges(config).allocate(0)


def test_what_an_installation_held_that_is_gone_is_free(machine: Path) -> None:
    gone, config = installation(machine / "gone"), installation(machine / "a")
    start = IdRanges(gone).allocate(0)
    assert IdRanges(config).allocate(start) != start
    gone.data_dir.rename(machine / "elsewhere")
    assert IdRanges(config).allocate(start) == start
    release_all(config)
    assert not (machine / "run" / "ids").exists()
