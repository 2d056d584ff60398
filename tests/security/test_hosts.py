"""`cumulet up --hosts` as root, in folders where somebody else has put links, and with a data directory that is somebody else's."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import pytest

from cumulet.common.config import Config
from cumulet.common.private_files import write_private
from cumulet.up.hosts import Hosts

_SERVER = "one.azurecr.io"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A file system with an /etc/hosts."""
    made = tmp_path / "root"
    (made / "etc").mkdir(parents=True)
    (made / "etc/hosts").write_text("127.0.0.1 localhost\n")
    return made


@pytest.fixture
def victim(tmp_path: Path) -> Path:
    """A file that must stay as it is."""
    made = tmp_path / "victim" / "shadow"
    made.parent.mkdir()
    made.write_text("root:secret\n")
    made.chmod(0o600)
    return made


@pytest.fixture
def hosts(config: Config, root: Path, victim: Path) -> Hosts:
    write_private(config.login_servers_file, _SERVER.encode())
    return Hosts(config, root)


def is_untouched(victim: Path) -> bool:
    return (
        victim.read_text() == "root:secret\n"
        and stat.S_IMODE(victim.stat().st_mode) == 0o600
        and [path.name for path in victim.parent.iterdir()] == ["shadow"]
    )


def readable(root: Path) -> list[str]:
    """What is in all files below."""
    return [path.read_text() for path in root.rglob("*") if path.is_file() and not path.is_symlink()]


def test_a_link_in_the_place_of_the_file_is_not_followed(hosts: Hosts, root: Path, victim: Path) -> None:
    (root / "etc/hosts").unlink()
    (root / "etc/hosts").symlink_to(victim)
    with pytest.raises(OSError, match="symbolic link"):
        hosts.update()
    assert is_untouched(victim)


@pytest.mark.parametrize("link", ["docker", "docker/certs.d", f"docker/certs.d/{_SERVER}"])
def test_a_link_in_the_place_of_a_folder_is_not_followed(hosts: Hosts, root: Path, victim: Path, link: str) -> None:
    place = root / "etc" / link
    place.parent.mkdir(parents=True, exist_ok=True)
    place.symlink_to(victim.parent)
    with pytest.raises(OSError, match="symbolic link"):
        hosts.update()
    assert is_untouched(victim)
    hosts.remove()
    assert is_untouched(victim)
    assert place.is_symlink()


@pytest.mark.parametrize("there", [True, False])
def test_a_link_in_the_place_of_a_certificate_is_not_followed(
    hosts: Hosts, config: Config, root: Path, victim: Path, there: bool
) -> None:
    folder = root / "etc/docker/certs.d" / _SERVER
    folder.mkdir(parents=True)
    hosts.update()
    hosts.remove()
    target = victim if there else victim.with_name("new")
    (folder / "ca.crt").symlink_to(target)
    hosts.update()
    (own,) = [path for path in folder.iterdir() if path.name != "ca.crt"]
    assert own.read_bytes() == config.ca_file.read_bytes()
    assert stat.S_IMODE(own.stat().st_mode) == 0o644
    hosts.remove()
    own.symlink_to(target)  # its name is no secret
    hosts.update()
    assert not own.is_symlink()
    assert own.read_bytes() == config.ca_file.read_bytes()
    assert is_untouched(victim)


def test_a_pipe_in_the_place_of_a_certificate_is_not_waited_for(hosts: Hosts, root: Path) -> None:
    folder = root / "etc/docker/certs.d" / _SERVER
    folder.mkdir(parents=True)
    os.mkfifo(folder / "ca.crt")
    hosts.update()
    assert len(list(folder.iterdir())) == 2


def test_only_what_can_be_its_own_is_removed(hosts: Hosts, config: Config, root: Path, victim: Path) -> None:
    hosts.update()
    theirs = root / "etc/docker/certs.d/theirs/theirs.crt"
    theirs.parent.mkdir()
    theirs.write_text("theirs")
    empty = root / "empty"
    empty.mkdir()
    journal = config.data_dir / "run/hosts.json"
    noted = json.loads(journal.read_text())
    above = f"{root}/etc/docker/certs.d/../../../../victim"
    noted["files"] += [str(victim), str(theirs), f"{above}/shadow", "etc/hosts", f"{root}/etc/hosts"]
    noted["folders"] += [str(empty), f"{root}/etc/docker/certs.d/../../../empty", "/", ""]
    journal.write_text(json.dumps(noted))
    hosts.remove()
    assert is_untouched(victim)
    assert theirs.read_text() == "theirs"
    assert empty.is_dir()
    assert (root / "etc/hosts").read_text() == "127.0.0.1 localhost\n"
    assert not (root / "etc/docker/certs.d" / _SERVER).exists()


def test_what_is_no_certificate_is_not_shown_to_all(hosts: Hosts, config: Config, root: Path, victim: Path) -> None:
    config.ca_file.unlink()
    config.ca_file.symlink_to(victim)
    with pytest.raises(OSError, match="is not a certificate"):
        hosts.update()
    assert not any("secret" in text for text in readable(root))


def test_a_link_with_the_name_of_a_file_that_is_only_for_a_while(tmp_path: Path, victim: Path) -> None:
    file = tmp_path / "private"
    for name in (f".private.{os.getpid()}", ".private.tmp", "private"):
        (tmp_path / name).symlink_to(victim)
    write_private(file, b"new")
    assert file.read_bytes() == b"new"
    assert not file.is_symlink()
    assert is_untouched(victim)
