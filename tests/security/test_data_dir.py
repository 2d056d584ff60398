"""A data directory in which somebody else may write: root follows what is there, so it is not used at all."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from cumulet.common.config import Config, ConfigError, load
from cumulet.up import lifecycle
from cumulet.up.install import install
from cumulet.up.supervisor import take_lock


@pytest.mark.parametrize("use", [install, load, lifecycle.is_running])
def test_what_others_may_write_in_is_refused(
    config: Config, monkeypatch: pytest.MonkeyPatch, use: Callable[[Path], object]
) -> None:
    assert os.geteuid() == 0, "these tests give files away: they need root"
    use(config.data_dir)
    config.data_dir.chmod(0o770)
    with pytest.raises(ConfigError, match="chmod 0700"):
        use(config.data_dir)
    config.data_dir.chmod(0o700)
    os.chown(config.data_dir, 12345, 12345)
    with pytest.raises(ConfigError, match="belongs to the user 12345"):
        use(config.data_dir)
    # Whoever ran sudo may do as root does.
    monkeypatch.setenv("SUDO_UID", "12345")
    use(config.data_dir)


def test_a_link_to_what_is_another_users_is_refused(tmp_path: Path) -> None:
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    os.chown(theirs, 12345, 12345)
    (tmp_path / "link").symlink_to(theirs)
    with pytest.raises(ConfigError, match="belongs to the user 12345"):
        install(tmp_path / "link")
    assert not any(theirs.iterdir())


def test_down_ends_only_what_is_the_supervisor(config: Config) -> None:
    command = [sys.executable, "-c", "import sys; sys.stdin.read()"]
    with subprocess.Popen(command, stdin=subprocess.PIPE) as stranger:
        file = config.data_dir / "run/pids.json"
        file.parent.mkdir(exist_ok=True)
        file.write_text(json.dumps({"supervisor": stranger.pid}))
        # Somebody holds the lock, and the file is old.
        lock = take_lock(config.data_dir)
        assert lock is not None
        with lock:
            lifecycle.stop(config)
        assert stranger.stdin is not None
        stranger.stdin.close()
        assert stranger.wait() == 0
