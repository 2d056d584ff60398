"""Makes login servers and names of container groups resolvable on this machine, and trusted: `cumulet up --hosts`.

The registry also listens on port 443 of a loopback address. A marked block in /etc/hosts maps each login server to that
address, and the name of each group with a `dnsNameLabel` to the group's. docker and containers/image read the CA from `certs.d/<server>/ca.crt`. A journal records each file before it
is created, so that `down`, or the next `up` or `down` after a crash, removes exactly those files. The rest of
/etc/hosts stays unchanged.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import hashlib
import ipaddress
import os
import re
import ssl
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

import msgspec

from cumulet.common import private_files
from cumulet.common.config import Address, Config
from cumulet.up import etc

_HTTPS = 443
_CLIENTS = ("docker", "containers")
_GROUP = re.compile(r"[a-z0-9-]{1,63}(?:\.[a-z0-9]{1,63}){1,2}\.azurecontainer\.io")
_SERVER = re.compile(r"[a-z0-9](?:[a-z0-9.-]{0,251}[a-z0-9])?")

_IN_MOVED_TO = 0x80
_IN_NONBLOCK = os.O_NONBLOCK


def address(config: Config) -> Address:
    """Return port 443 of the loopback address for login servers. It is derived from the data directory."""
    digest = hashlib.sha256(os.fsencode(config.data_dir.absolute())).digest()
    return Address(f"127.44.{digest[0]}.{digest[1] % 254 + 1}", _HTTPS)


def with_hosts(config: Config, enabled: bool) -> Config:
    """Return the settings with that address among the registry's, or without it."""
    others = [given for given in config.more_addresses.get("registry", []) if given != address(config)]
    addresses = [*others, address(config)] if enabled else others
    more = {room: given for room, given in config.more_addresses.items() if room != "registry"}
    return msgspec.structs.replace(config, more_addresses={**more, "registry": addresses} if addresses else more)


def is_enabled(config: Config) -> bool:
    """Return whether the settings have that address."""
    return address(config) in config.more_addresses.get("registry", [])


class _Place(NamedTuple):
    """A client's folder for a server."""

    client: str
    server: str

    @property
    def parts(self) -> tuple[str, ...]:
        """The path components from the root."""
        return ("etc", self.client, "certs.d", self.server)


class _File(NamedTuple):
    """A certificate file that this module created."""

    place: _Place
    name: str


class _Made(NamedTuple):
    """The files and folders that were created, in order."""

    files: list[_File]
    folders: list[tuple[str, ...]]


class _Journal(msgspec.Struct):
    """The created files and folders as paths, as JSON on disk."""

    files: list[str] = []
    folders: list[str] = []


class Hosts:
    """The block and the folders of one installation. `root` is the parent of `etc`. All methods raise `OSError`."""

    def __init__(self, config: Config, root: Path = Path("/")) -> None:
        self._config = config
        self._address = address(config).host
        self._root = root
        self._hosts = root / "etc" / "hosts"
        self._journal = config.data_dir / "run" / "hosts.json"
        name = hashlib.sha256(os.fsencode(config.data_dir.absolute())).hexdigest()[:8]
        self._begin = f"# BEGIN cumulet {name}".encode()
        self._end = f"# END cumulet {name}".encode()
        self._certificate = f"cumulet-{name}.crt"

    def update(self) -> None:
        """Update the block and the folders to the current login servers, and the block to the names of groups."""
        servers = _servers(self._config)
        entries = [f"{self._address} {server}\n" for server in servers]
        self._write_block([*entries, *(f"{address} {name}\n" for name, address in _groups(self._config))])
        made = self._made()
        places = [_Place(client, server) for client in _CLIENTS for server in servers]
        for file in [file for file in made.files if file.place not in places]:
            self._remove(made, file)
        for place in places:
            if not any(file.place == place for file in made.files):
                self._add(made, place)

    def is_stale(self) -> bool:
        """Return whether a client has another CA certificate than the current one."""
        authority = self._config.ca_file.read_bytes()
        files = (self._root.joinpath(*file.place.parts, file.name) for file in self._made().files)
        return any(file.read_bytes() != authority for file in files if file.exists())

    def remove(self) -> list[str]:
        """Remove everything, and return a line for each thing removed."""
        removed = []
        if self._write_block([]):
            removed.append(f"names in {self._hosts}")
        made = self._made()
        for file in list(made.files):
            self._remove(made, file)
            removed.append(f"certificate {self._root.joinpath(*file.place.parts, file.name)}")
        for parts in reversed(made.folders):
            self._remove_folder(parts)
        self._journal.unlink(missing_ok=True)
        return removed

    # /etc/hosts.

    def _write_block(self, entries: Iterable[str]) -> bool:
        """Write the block, or remove it if there are no entries. Return whether the file had one.

        The file is written in place, because it is a mount in a container. Bytes before the block are never written,
        so a crash cannot lose them.
        """
        lines = [entry.encode() for entry in entries]
        if not lines and not self._has_block():
            return False
        with self._locked() as file:
            content = file.read()
            begin, end = self._find(content)
            before, after = content[:begin], content[end:]
            block = b""
            if lines:
                # A newline after an unterminated last line belongs to the block and is removed with it.
                gap = b"\n" if before and not before.endswith(b"\n") else b""
                note = b" after a line without an end" if gap else b""
                note += b": `cumulet down` removes this block\n"
                block = gap + self._begin + note + b"".join(lines) + self._end + b"\n"
            if content[begin:] != block + after:
                os.pwrite(file.fileno(), block + after, begin)
                os.ftruncate(file.fileno(), begin + len(block) + len(after))
                os.fsync(file.fileno())
            return end > begin

    def _has_block(self) -> bool:
        try:
            with etc.folder(self._root, ("etc",)) as folder:
                return self._begin in (etc.read(folder, "hosts") or b"")
        except FileNotFoundError:
            return False

    @contextlib.contextmanager
    def _locked(self) -> Iterator[BinaryIO]:
        """Open the file and lock out other installations. Raises `OSError` if it is a link or not a regular file."""
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        with etc.folder(self._root, ("etc",)) as folder:
            try:
                opened = os.open("hosts", flags, 0o644, dir_fd=folder)
            except OSError as error:
                if error.errno != errno.ELOOP:
                    raise
                why = "is a symbolic link, and links are not followed: replace it with a file, or omit --hosts"
                raise OSError(error.errno, f"{self._hosts} {why}") from None
        with os.fdopen(opened, "r+b", 0) as file:
            if not stat.S_ISREG(os.fstat(opened).st_mode):
                raise OSError(errno.EINVAL, f"{self._hosts} is not a regular file")
            fcntl.flock(file, fcntl.LOCK_EX)
            yield file

    def _find(self, content: bytes) -> tuple[int, int]:
        """Return start and end of the block. Both are the end of the file if there is none or it was edited."""
        line = rb"(?:%b [^\n]*|[\d.]+ %b)\n" % (re.escape(self._address.encode()), _GROUP.pattern.encode())
        match = re.search(
            rb"^" + re.escape(self._begin) + rb"(?P<gap> after[^:\n]*)?:[^\n]*\n"
            rb"(?:" + line + rb")*" + re.escape(self._end) + rb"\n?",
            content,
            re.MULTILINE,
        )
        if match is None:
            return len(content), len(content)
        # The added newline is removed too, unless it now separates two lines.
        gap = match["gap"] is not None and match.end() == len(content)
        return match.start() - gap, match.end()

    # The folders of docker and containers/image.

    def _made(self) -> _Made:
        """Read the journal. Skip paths that this module cannot have created, because another user may own its folder."""
        try:
            journal = msgspec.json.decode(self._journal.read_bytes(), type=_Journal)
        except FileNotFoundError:
            return _Made([], [])
        return _Made(
            [file for text in journal.files if (file := self._parse(text)) is not None],
            [parts for text in journal.folders if (parts := self._parse_folder(text)) is not None],
        )

    def _parse(self, text: str) -> _File | None:
        match self._parts(text):
            case ("etc", client, "certs.d", server, name) if client in _CLIENTS and _is_server(server):
                return _File(_Place(client, server), name) if name in ("ca.crt", self._certificate) else None
        return None

    def _parse_folder(self, text: str) -> tuple[str, ...] | None:
        match parts := self._parts(text):
            case ("etc", client, *below) if client in _CLIENTS and below[:1] in ([], ["certs.d"]) and len(below) <= 2:
                return parts if len(below) < 2 or _is_server(below[1]) else None
        return None

    def _parts(self, text: str) -> tuple[str, ...]:
        try:
            return Path(text).relative_to(self._root).parts
        except ValueError:
            return ()

    def _record(self, made: _Made) -> None:
        journal = _Journal(
            [str(self._root.joinpath(*file.place.parts, file.name)) for file in made.files],
            [str(self._root.joinpath(*parts)) for parts in made.folders],
        )
        private_files.write_private(self._journal, msgspec.json.encode(journal))

    def _add(self, made: _Made, place: _Place) -> None:
        authority = _authority(self._config)
        missing, name = self._missing(place), "ca.crt"
        if not missing:
            with etc.folder(self._root, place.parts) as folder:
                if etc.exists(folder, name):
                    if etc.read(folder, name) == authority:
                        return
                    name = self._certificate  # ca.crt is the user's; clients read every `*.crt`
        made.folders.extend(missing)
        made.files.append(_File(place, name))
        self._record(made)
        with etc.folder(self._root, place.parts, make=True) as folder:
            etc.write(folder, name, authority)

    def _missing(self, place: _Place) -> list[tuple[str, ...]]:
        """Return the missing folders, outermost first."""
        for length in range(1, len(place.parts) + 1):
            try:
                with etc.folder(self._root, place.parts[:length]):
                    pass
            except FileNotFoundError:
                return [place.parts[:end] for end in range(length, len(place.parts) + 1)]
        return []

    def _remove(self, made: _Made, file: _File) -> None:
        with contextlib.suppress(FileNotFoundError), etc.folder(self._root, file.place.parts) as folder:
            os.unlink(file.name, dir_fd=folder)
        made.files.remove(file)
        if file.place.parts in made.folders:
            self._remove_folder(file.place.parts)
            made.folders.remove(file.place.parts)
        self._record(made)

    def _remove_folder(self, parts: tuple[str, ...]) -> None:
        # The folder may have other files by now.
        with contextlib.suppress(OSError), etc.folder(self._root, parts[:-1]) as folder:
            os.rmdir(parts[-1], dir_fd=folder)


class Watch:
    """Watches the lists of login servers and of groups' names (inotify(7))."""

    def __init__(self, config: Config) -> None:
        files = (config.login_servers_file, config.group_names_file)
        self._names = [os.fsencode(file.name) for file in files]
        libc = ctypes.CDLL(None, use_errno=True)
        self._descriptor: int = libc.inotify_init1(os.O_CLOEXEC | _IN_NONBLOCK)
        for file in files:
            folder = os.fsencode(private_files.private_folder(file.parent))
            if self._descriptor < 0 or libc.inotify_add_watch(self._descriptor, folder, _IN_MOVED_TO) < 0:
                raise OSError(ctypes.get_errno(), "inotify")

    def fileno(self) -> int:
        """Return the descriptor, which is readable when there is an event to `take`."""
        return self._descriptor

    def take(self) -> bool:
        """Read the events, and return whether a list has changed."""
        try:
            # An event is a header and the name, padded with NUL bytes.
            events = os.read(self._descriptor, 65536)
            return any(name + b"\0" in events for name in self._names)
        except BlockingIOError:
            return False

    def close(self) -> None:
        """Close the descriptor."""
        os.close(self._descriptor)


def _servers(config: Config) -> list[str]:
    """Return the current login servers. Skips lines that are not host names."""
    try:
        lines = config.login_servers_file.read_text().split()
    except FileNotFoundError:
        return []
    return sorted({line for line in lines if _is_server(line)})


def _groups(config: Config) -> list[tuple[str, str]]:
    """Return the current names of container groups with their addresses. Skips what is no such name or no address of a pod."""
    try:
        lines = config.group_names_file.read_text().splitlines()
    except FileNotFoundError:
        return []
    pods, found = ipaddress.IPv4Network(config.pod_cidr), {}
    for line in lines:
        address, _, name = line.partition(" ")
        with contextlib.suppress(ValueError):
            if ipaddress.IPv4Address(address) in pods and _GROUP.fullmatch(name):
                found[name] = address
    return sorted(found.items())


def _is_server(text: str) -> bool:
    return _SERVER.fullmatch(text) is not None and ".." not in text


def _authority(config: Config) -> bytes:
    """Return the CA certificate. Raises `OSError` if the file is not one, because the copy is world-readable."""
    content = config.ca_file.read_bytes()
    try:
        ssl.PEM_cert_to_DER_cert(content.decode("ascii"))
    except ValueError:
        raise OSError(errno.EINVAL, f"{config.ca_file} is not a certificate") from None
    return content
