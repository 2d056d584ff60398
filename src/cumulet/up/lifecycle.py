"""Starts, stops and inspects an installation from outside its processes, for the command line."""

from __future__ import annotations

import asyncio
import json
import os
import select
import signal
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import aiohttp
import msgspec

from cumulet.common import tls
from cumulet.common.config import Config, ConfigError, RoomName
from cumulet.common.kubernetes import KubernetesError
from cumulet.common.private_files import private_folder
from cumulet.instances.sandbox.user_namespaces import support_file
from cumulet.up import pools
from cumulet.up.hosts import Hosts
from cumulet.up.preflight import Problem, problems
from cumulet.up.provision import ProvisionError, provision
from cumulet.up.supervisor import log_file, pids_file, take_lock

#: Seconds in which the rooms have to become ready.
_READY_LIMIT = 30.0


class StartError(Exception):
    """The rooms did not start. `problems` lists missing requirements, if that is the reason."""

    def __init__(self, message: str, found: list[Problem] | None = None) -> None:
        super().__init__(message)
        self.problems = found or []


class RoomStatus(msgspec.Struct, frozen=True):
    """The state of a room. `resident` is its proportional set size in bytes: shared pages are divided by their users."""

    room: RoomName
    url: str
    pid: int | None
    health: str
    resident: int | None


class Running:
    """A supervisor that was just started, as a child process."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process

    def wait(self) -> int:
        """Wait until the supervisor has ended and cleaned up, and return its exit code. Forwards SIGINT and SIGTERM."""
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: self._process.terminate())
        return self._process.wait()


def is_running(data_dir: Path) -> bool:
    """Return whether a supervisor of the installation in this directory runs. Raises `ConfigError`."""
    lock = take_lock(data_dir)
    if lock is None:
        return True
    lock.close()
    return False


def refuse_second(data_dir: Path) -> None:
    """Raise `StartError` if the installation in this directory runs, because its settings must not change meanwhile."""
    if is_running(data_dir):
        raise StartError("already running. Check it with `cumulet status`, or stop it with `cumulet down`")


def start(config: Config, report: Callable[[str], None] = lambda line: None) -> Running:
    """Start the rooms, wait until all are ready, provision the cluster, and remove the nodes that leave its pool.

    `report` gets a line for each thing that takes long. Raises `StartError` after stopping the rooms that were started.
    """
    refuse_second(config.data_dir)
    if found := problems(config):
        raise StartError("missing requirements:", found)
    began = time.monotonic()
    reads, writes = os.pipe()
    output = log_file(config, "supervisor").with_suffix(".out")
    private_folder(output.parent)
    with output.open("ab") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "cumulet.up.supervisor", str(config.data_dir), str(writes)],
            pass_fds=[writes],
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
            start_new_session=True,  # Ctrl-C reaches this process only, which forwards it
        )
    os.close(writes)
    missing: set[str] = set(config.rooms)
    try:
        for line in _lines(reads, began + _READY_LIMIT):
            if line["event"] == "failed":
                raise StartError(str(line["message"]))
            if line["event"] == "ready":
                missing.discard(line["room"])
            if not missing:
                break
        if missing:
            logs = ", ".join(str(log_file(config, room)) for room in sorted(missing))
            raise StartError(f"not ready: {', '.join(sorted(missing))}. Read the reason in {logs}")
        try:
            asyncio.run(_complete(config, report))
        except (ProvisionError, ConfigError, KubernetesError, aiohttp.ClientError) as error:
            raise StartError(str(error)) from error
    except BaseException:
        process.terminate()
        process.wait()
        raise
    finally:
        os.close(reads)
    return Running(process)


async def _complete(config: Config, report: Callable[[str], None]) -> None:
    await provision(config)
    await pools.scale_down(config, report)


def stop(config: Config) -> list[str]:
    """Stop the rooms, remove everything that they left on this machine, and return a line for each thing removed."""
    pids = _pids(config)
    supervisor = pids.get("supervisor")
    if supervisor is not None and is_running(config.data_dir) and _is_supervisor(supervisor, config):
        _end(supervisor, signal.SIGTERM)
    from cumulet.instances.cleanup import cleanup

    # An orderly stop leaves nothing. A killed supervisor does.
    return [*Hosts(config).remove(), *cleanup(config)]


async def status(config: Config) -> list[RoomStatus]:
    """Return the state of every room."""
    pids = _pids(config)
    # A room returns the reason why it is not ready to the scraper only. `kube` and `node` do not accept its certificate.
    scraper = config.scraper_files if all(file.exists() for file in config.scraper_files) else ()
    timeout = aiohttp.ClientTimeout(total=3)
    async with aiohttp.ClientSession(timeout=timeout) as session:

        async def check(room: RoomName) -> RoomStatus:
            pid = pids.get(room)
            shown = () if room in ("kube", "node") else scraper
            context = tls.client_context(config.authority_file(config.serving_authority(room)), *shown)
            health = await _health(session, f"{config.url(room)}/readyz", context)
            return RoomStatus(room, config.url(room), pid, health, resident_bytes(pid) if pid else None)

        return list(await asyncio.gather(*(check(room) for room in config.rooms)))


def user_namespaces(config: Config) -> str:
    """Return whether containers have user namespaces, or why not, as the room `instances` reported it."""
    try:
        return support_file(config).read_text().strip()
    except OSError:
        return "unknown: the room instances is not running, or this user cannot read its state"


def resident_bytes(pid: int) -> int | None:
    """Return the proportional set size of a process in bytes (proc(5), smaps_rollup), or `None` if it has ended."""
    try:
        rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in rollup.splitlines() if line.startswith("Pss:")), None)


async def _health(session: aiohttp.ClientSession, url: str, context: ssl.SSLContext) -> str:
    try:
        async with session.get(url, ssl=context) as response:
            text = (await response.text())[:200]
            return "ready" if response.status == 200 else f"not ready: {text.removeprefix('not ready')}".rstrip(": ")
    except TimeoutError:
        return "no response in 3 s"
    except aiohttp.ClientConnectorError as error:
        return f"down: {os.strerror(error.errno) if error.errno else error}"
    except aiohttp.ClientError as error:
        return f"down: {error}"


def _lines(descriptor: int, until: float) -> Iterator[dict[str, str]]:
    """Yield the supervisor's reports until it ends or the monotonic time `until`."""
    pending = b""
    while (patience := until - time.monotonic()) > 0:
        if not select.select([descriptor], [], [], patience)[0]:
            return
        chunk = os.read(descriptor, 65536)
        if not chunk:
            return
        *lines, pending = (pending + chunk).split(b"\n")
        for line in lines:
            yield json.loads(line)


def _pids(config: Config) -> dict[str, int]:
    try:
        pids: dict[str, int] = json.loads(pids_file(config).read_bytes())
    except (FileNotFoundError, json.JSONDecodeError):
        return {}
    return pids


def _is_supervisor(pid: int, config: Config) -> bool:
    """Return whether a process is the supervisor of this installation. The pid may have been reused."""
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return False
    own = os.path.realpath(os.fsencode(config.data_dir))
    return b"cumulet.up.supervisor" in words and own in map(os.path.realpath, words)


def _end(pid: int, number: signal.Signals) -> None:
    """Signal a process, which may not be a child, and wait until it has ended."""
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        signal.pidfd_send_signal(pidfd, number)
        select.select([pidfd], [], [])
    except ProcessLookupError:
        return
    finally:
        os.close(pidfd)
