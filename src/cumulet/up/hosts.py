"""Login servers by their names on this machine: `cumulet up --hosts`.

The registry then listens on port 443 of a loopback address of the installation's own too; a marked block of /etc/hosts
gives that address to each login server, and docker and containers/image find our authority in their folders for it
(`certs.d/<server>/ca.crt`). What was made is noted before it is made, so that `down`, or the next `up` or `down` after
a crash, takes away exactly that. Everything else in /etc/hosts stays byte for byte.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import hashlib
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

import msgspec

from cumulet.common import config as settings
from cumulet.common.config import Address, Config

_HTTPS = 443
_CLIENTS = ("docker", "containers")
_SERVER = re.compile(r"[a-z0-9](?:[a-z0-9.-]{0,251}[a-z0-9])?")

_IN_MOVED_TO = 0x80
_IN_NONBLOCK = os.O_NONBLOCK


def address(config: Config) -> Address:
    """Port 443 of the loopback address that login servers get: each installation has one of its own."""
    digest = hashlib.sha256(os.fsencode(config.data_dir.absolute())).digest()
    return Address(f"127.44.{digest[0]}.{digest[1] % 254 + 1}", _HTTPS)


def with_hosts(config: Config, wanted: bool) -> Config:
    """The settings with that address among the registry's, or without it."""
    others = [given for given in config.more_addresses.get("registry", []) if given != address(config)]
    addresses = [*others, address(config)] if wanted else others
    more = {room: given for room, given in config.more_addresses.items() if room != "registry"}
    return msgspec.structs.replace(config, more_addresses={**more, "registry": addresses} if addresses else more)


def is_wanted(config: Config) -> bool:
    """Whether the settings say so."""
    return address(config) in config.more_addresses.get("registry", [])


class _Made(msgspec.Struct):
    """The files and folders that were made, in order."""

    files: list[str] = []
    folders: list[str] = []


class Hosts:
    """The block and the folders of one installation; `root` is where `etc` is. All raise `OSError`."""

    def __init__(self, config: Config, root: Path = Path("/")) -> None:
        self._config = config
        self._address = address(config).host
        self._hosts = root / "etc" / "hosts"
        self._folders = [root / "etc" / client / "certs.d" for client in _CLIENTS]
        self._journal = config.data_dir / "run" / "hosts.json"
        name = hashlib.sha256(os.fsencode(config.data_dir.absolute())).hexdigest()[:8]
        self._begin = f"# BEGIN cumulet {name}".encode()
        self._end = f"# END cumulet {name}".encode()
        self._certificate = f"cumulet-{name}.crt"

    def update(self) -> None:
        """Make the block and the folders those of the login servers that there are now."""
        servers = _servers(self._config)
        self._write_block(servers)
        made = self._made()
        wanted = {str(folder / server) for folder in self._folders for server in servers}
        for file in [file for file in made.files if str(Path(file).parent) not in wanted]:
            self._remove(made, file)
        for folder in sorted(wanted):
            if not any(str(Path(file).parent) == folder for file in made.files):
                self._add(made, Path(folder))

    def is_stale(self) -> bool:
        """Tell whether a client has an authority other than the current one."""
        authority = self._config.ca_file.read_bytes()
        return any(Path(file).read_bytes() != authority for file in self._made().files if Path(file).exists())

    def remove(self) -> list[str]:
        """Take everything away; what that was, a line a thing."""
        removed = []
        if self._write_block([]):
            removed.append(f"login servers in {self._hosts}")
        made = self._made()
        for file in list(made.files):
            self._remove(made, file)
            removed.append(f"certificate {file}")
        for folder in reversed(made.folders):
            with contextlib.suppress(OSError):  # somebody else put something there
                Path(folder).rmdir()
        self._journal.unlink(missing_ok=True)
        return removed

    # /etc/hosts.

    def _write_block(self, servers: Iterable[str]) -> bool:
        """Put the block in, at the end where it was not there, or take it out; whether it was there.

        The file is written in place: it may be a mount of its own, as in a container. What comes before the block is
        never written, so a crash cannot lose it.
        """
        lines = [f"{self._address} {server}\n".encode() for server in servers]
        if not lines and not self._has_block():
            return False
        with self._locked() as file:
            content = file.read()
            begin, end = self._find(content)
            before, after = content[:begin], content[end:]
            block = b""
            if lines:
                # A last line without an end gets one, which belongs to the block and goes with it.
                gap = b"\n" if before and not before.endswith(b"\n") else b""
                note = b" after a line without an end" if gap else b""
                note += b": `cumulet down` takes this away\n"
                block = gap + self._begin + note + b"".join(lines) + self._end + b"\n"
            if content[begin:] != block + after:
                os.pwrite(file.fileno(), block + after, begin)
                os.ftruncate(file.fileno(), begin + len(block) + len(after))
                os.fsync(file.fileno())
            return end > begin

    def _has_block(self) -> bool:
        try:
            return self._begin in self._hosts.read_bytes()
        except FileNotFoundError:
            return False

    @contextlib.contextmanager
    def _locked(self) -> Iterator[BinaryIO]:
        """The file, which other installations leave alone meanwhile."""
        with os.fdopen(os.open(self._hosts, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644), "r+b", 0) as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield file

    def _find(self, content: bytes) -> tuple[int, int]:
        """Where the block is; the end where there is none, or where somebody has written into it."""
        ours = re.escape(self._address.encode())
        match = re.search(
            rb"^" + re.escape(self._begin) + rb"(?P<gap> after[^:\n]*)?:[^\n]*\n"
            rb"(?:" + ours + rb" [^\n]*\n)*" + re.escape(self._end) + rb"\n?",
            content,
            re.MULTILINE,
        )
        if match is None:
            return len(content), len(content)
        # The end of line that was added goes too, unless it now parts two lines.
        gap = match["gap"] is not None and match.end() == len(content)
        return match.start() - gap, match.end()

    # The folders of docker and containers/image.

    def _made(self) -> _Made:
        try:
            return msgspec.json.decode(self._journal.read_bytes(), type=_Made)
        except FileNotFoundError:
            return _Made()

    def _note(self, made: _Made) -> None:
        settings.write_private(self._journal, msgspec.json.encode(made))

    def _add(self, made: _Made, folder: Path) -> None:
        missing = [path for path in reversed([folder, *folder.parents]) if not path.exists()]
        authority = self._config.ca_file.read_bytes()
        file = folder / "ca.crt"
        if file.exists():
            if file.read_bytes() == authority:
                return
            file = folder / self._certificate  # somebody's own; every `*.crt` there is read
        made.folders += [str(path) for path in missing]
        made.files.append(str(file))
        self._note(made)
        folder.mkdir(mode=0o755, parents=True, exist_ok=True)
        file.write_bytes(authority)
        file.chmod(0o644)

    def _remove(self, made: _Made, file: str) -> None:
        Path(file).unlink(missing_ok=True)
        folder = str(Path(file).parent)
        made.files.remove(file)
        if folder in made.folders:
            with contextlib.suppress(OSError):
                Path(folder).rmdir()
            made.folders.remove(folder)
        self._note(made)


class Watch:
    """Tells when the registry has changed its list of login servers (inotify(7))."""

    def __init__(self, config: Config) -> None:
        self._name = os.fsencode(config.login_servers_file.name)
        folder = config.login_servers_file.parent
        settings.private_folder(folder)
        libc = ctypes.CDLL(None, use_errno=True)
        self._descriptor: int = libc.inotify_init1(os.O_CLOEXEC | _IN_NONBLOCK)
        if self._descriptor < 0 or libc.inotify_add_watch(self._descriptor, os.fsencode(folder), _IN_MOVED_TO) < 0:
            raise OSError(ctypes.get_errno(), "inotify")

    def fileno(self) -> int:
        """Readable when there is something to `take`."""
        return self._descriptor

    def take(self) -> bool:
        """Take in what happened; whether the list was among it."""
        try:
            # An event is a header and the name, padded with NUL.
            return self._name + b"\0" in os.read(self._descriptor, 65536)
        except BlockingIOError:
            return False

    def close(self) -> None:
        """Watch no more."""
        os.close(self._descriptor)


def _servers(config: Config) -> list[str]:
    """The login servers that there are; nothing that could be more than a name in /etc/hosts or a path."""
    try:
        lines = config.login_servers_file.read_text().split()
    except FileNotFoundError:
        return []
    return sorted({line for line in lines if _SERVER.fullmatch(line) and ".." not in line})
