"""Runs containers with runc, each under conmon, a supervisor that outlives this process.

conmon writes the log and the exit code, so that both exist when the room restarts. A descriptor of its process reports its
end.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import select
import shutil
import signal
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from subprocess import DEVNULL
from typing import NamedTuple

import msgspec

from cumulet.common.ascii import is_digits
from cumulet.common.private_files import private_folder
from cumulet.instances.sandbox import programs
from cumulet.instances.sandbox.programs import first_line, readable, run, until_end

#: A line of the runtime's log in its default form, whose message is quoted as in JSON.
_LOGGED = re.compile(r'level=(?P<level>\w+) msg=(?P<message>"(?:[^"\\]|\\.)*")', re.ASCII)
_CGROUPS = Path("/sys/fs/cgroup")
#: Seconds to wait for the end of a killed process.
_PATIENCE = 10


class _Entry(msgspec.Struct):
    """A line of the runtime's log in JSON."""

    level: str = ""
    msg: str = ""


class RuntimeFailure(Exception):  # noqa: N818  (a failure of the OCI runtime, whose name it has)
    """The runtime failed; the message is its own."""


class SupervisorFailure(RuntimeFailure):
    """The supervisor ended before it reported a container, which was not started."""


class Stdio(NamedTuple):
    """The standard streams of a container: a standard input that stays open, unless `once`, and a terminal."""

    stdin: bool
    once: bool
    terminal: bool

    def options(self) -> list[str]:
        """Return conmon's options."""
        return [
            *(["--stdin"] if self.stdin else ()),
            *(["--leave-stdin-open"] if self.stdin and not self.once else ()),
            *(["--terminal"] if self.terminal else ()),
        ]


class Runtime:
    """All containers of an installation. A container is named by its id and has its own folder, the bundle."""

    def __init__(self, state: Path) -> None:
        self._root = state / "runc"
        self._exits = state / "exits"
        for folder in (self._root, self._exits):
            private_folder(folder)
        self._conmon = shutil.which("conmon") or "conmon"
        self._runc = shutil.which("runc") or "runc"

    async def create(self, cid: str, bundle: Path, log: Path, configuration: bytes, stdio: Stdio) -> None:
        """Create a container in its folder without starting it. Raises `RuntimeFailure`.

        `stdio` agrees with `process.terminal` of the configuration. The configuration contains secrets: the runtime reads it from memory, and it is never on disk.
        """
        with in_memory(configuration) as path:
            link = bundle / "config.json"
            link.unlink(missing_ok=True)
            link.symlink_to(path)
            try:
                await self._create(cid, bundle, log, stdio)
            finally:
                link.unlink()

    async def _create(self, cid: str, bundle: Path, log: Path, stdio: Stdio) -> None:
        (self._exits / cid).unlink(missing_ok=True)
        reads, writes = os.pipe()
        try:
            command = (
                self._conmon,
                *("--api-version", "1", "--cid", cid, "--cuuid", cid, "--name", cid),
                *("--runtime", self._runc, "--runtime-arg", "--root", "--runtime-arg", str(self._root)),
                *("--bundle", str(bundle), "--container-pidfile", str(bundle / "pid")),
                *("--conmon-pidfile", str(bundle / "conmon.pid"), "--log-path", f"k8s-file:{log}"),
                *("--exit-dir", str(self._exits), "--persist-dir", str(bundle)),
                *("--full-attach", "--no-sync-log", "--log-level", "error", *stdio.options()),
            )
            process = subprocess.Popen(
                command,
                stdin=DEVNULL,
                stdout=DEVNULL,
                stderr=DEVNULL,
                pass_fds=[writes],
                env={"PATH": os.environ.get("PATH", os.defpath), "_OCI_SYNCPIPE": str(writes)},
                cwd=bundle,  # conmon writes a file here when the kernel kills a container for its memory use
            )
            os.close(writes)
            writes = -1
            answer = await first_line(reads)
            await until_end(process)
        finally:
            os.close(reads)
            if writes >= 0:
                os.close(writes)
        if not answer:
            raise SupervisorFailure("conmon ended without reporting the container")
        report = msgspec.json.decode(answer)
        if report.get("data", -1) <= 0:
            raise RuntimeFailure(sentence(str(report.get("message") or "the runtime failed")))

    def give_output(self, bundle: Path, uid: int, gid: int) -> None:
        """Give a container's output to its user, who can then open `/dev/stdout`, as runc does without a user namespace."""
        pid = int((bundle / "pid").read_text())
        for number in (1, 2):
            output = Path(f"/proc/{pid}/fd/{number}")
            if output.is_fifo():
                os.chown(output, uid, gid)

    async def start(self, cid: str) -> None:
        """Start a created container. Raises `RuntimeFailure`, also for one that was started before."""
        await self._call("start", cid)

    async def update(self, cid: str, resources: bytes) -> None:
        """Change the limits of a running container: `linux.resources` of its configuration. Raises `RuntimeFailure`."""
        await self._call("update", "--resources", "-", cid, given=resources)

    async def kill(self, cid: str, number: int = signal.SIGKILL) -> None:
        """Send a signal to a container, unless it has ended."""
        with contextlib.suppress(RuntimeFailure):
            await self._call("kill", cid, str(number))

    async def kill_all(self, cid: str) -> None:
        """Kill all processes of a container, also those that outlive its first one in a shared PID namespace."""
        with contextlib.suppress(RuntimeFailure):
            await self._call("kill", "--all", cid, str(int(signal.SIGKILL)))

    async def remove(self, cid: str) -> None:
        """Remove the runtime's state of a container, if there is any."""
        with contextlib.suppress(RuntimeFailure):
            await self._call("delete", "--force", cid)
        (self._exits / cid).unlink(missing_ok=True)

    async def abandon(self, cid: str, bundle: Path) -> None:
        """Remove a container whose creation was interrupted, and the processes that may still create it."""
        await asyncio.to_thread(_end_processes, os.fsencode(bundle))
        await self.remove(cid)
        await asyncio.to_thread(_remove_control_groups, cid)  # a runtime that was killed may not have recorded them

    async def wait(self, cid: str, bundle: Path) -> int | None:
        """Wait for the end of a container; return its exit code, or `None` when conmon could not record it."""
        pidfd = self._open(bundle)
        if pidfd is not None:
            try:
                await readable(pidfd)
            finally:
                os.close(pidfd)
        try:
            return int((self._exits / cid).read_text())
        except (FileNotFoundError, ValueError):
            return None

    def is_running(self, bundle: Path) -> bool:
        """Return whether a container has a supervisor, which lives as long as the container."""
        pidfd = self._open(bundle)
        if pidfd is None:
            return False
        os.close(pidfd)
        return True

    def ended(self, cid: str) -> datetime | None:
        """Return when a container ended, if conmon recorded it."""
        try:
            return datetime.fromtimestamp((self._exits / cid).stat().st_mtime, UTC)
        except FileNotFoundError:
            return None

    def was_killed_for_memory(self, bundle: Path) -> bool:
        """Return whether the kernel killed a container for its memory use."""
        return (bundle / "oom").exists()

    @contextlib.contextmanager
    def processes_of(self, bundle: Path) -> Iterator[Path | None]:
        """Yield the path of a file that names the PID namespace of a container, `None` if the container has ended."""
        try:
            pid = int((bundle / "pid").read_text())
            descriptor = os.open(f"/proc/{pid}/ns/pid", os.O_RDONLY | os.O_CLOEXEC)
        except (FileNotFoundError, ValueError, ProcessLookupError):
            yield None
            return
        try:
            pidfd = self._open(bundle)
            # The number of its process can be another one's by now, unless its conmon still waits for it.
            alive = pidfd is not None
            if pidfd is not None:
                os.close(pidfd)
            yield Path(f"/proc/{os.getpid()}/fd/{descriptor}") if alive else None
        finally:
            os.close(descriptor)

    def exec_command(self, cid: str, process: Path, log: Path | None = None) -> list[str]:
        """Return the command that runs a further process, described in a file, in a container.

        The runtime writes its own failures to `log`.
        """
        logged = () if log is None else ("--log", str(log), "--log-format", "json")
        return [self._runc, "--root", str(self._root), *logged, "exec", "--process", str(process), cid]

    def _open(self, bundle: Path) -> int | None:
        """Return a descriptor of conmon's process, or `None`. Process ids are reused, so its command line is checked."""
        try:
            pid = int((bundle / "conmon.pid").read_text())
            pidfd = os.pidfd_open(pid)
        except (FileNotFoundError, ValueError, ProcessLookupError):
            return None
        try:
            command = Path(f"/proc/{pid}/cmdline").read_bytes()
        except OSError:
            command = b""
        if os.fsencode(bundle) not in command:
            os.close(pidfd)
            return None
        return pidfd

    async def _call(self, *arguments: str, given: bytes = b"") -> None:
        done = await run(self._runc, "--root", str(self._root), *arguments, given=given)
        if done.code:
            raise RuntimeFailure(sentence(done.reason))


def control_pipe(bundle: Path) -> Path:
    """Return the pipe through which conmon is told the size of a terminal, and to open its log again."""
    return bundle / "ctl"


@contextlib.contextmanager
def in_memory(content: bytes) -> Iterator[Path]:
    """Yield the path of a file in memory, which processes of the same user can read inside the block."""
    with programs.in_memory(content) as descriptor:
        yield Path(f"/proc/{os.getpid()}/fd/{descriptor}")


def sentence(text: str) -> str:
    """Return what a message of the runtime says, without the form of a line of its log."""
    lines = [line for line in text.strip().splitlines() if line.strip()]
    logged = [match for line in lines if (match := _LOGGED.search(line)) and match["level"] != "warning"]
    if not logged:
        return (lines[-1] if lines else "the runtime failed").strip()
    quoted = logged[-1]["message"]
    try:
        return msgspec.json.decode(quoted.encode(), type=str).strip()
    except msgspec.DecodeError:  # Go escapes some characters in other ways
        return quoted.strip('"')


def failure_in(log: bytes) -> str | None:
    """Return the last error in a log of the runtime, in JSON, or `None`."""
    for line in reversed(log.splitlines()):
        try:
            entry = msgspec.json.decode(line, type=_Entry)
        except msgspec.DecodeError:
            continue
        if entry.level in ("error", "fatal", "panic"):
            return entry.msg.strip()
    return None


def _remove_control_groups(cid: str) -> None:
    """Remove the control groups of a container, with the processes in them."""
    for hierarchy in (_CGROUPS, *_CGROUPS.iterdir()):
        for group in hierarchy.glob(f"cumulet-*/{cid}"):
            with contextlib.suppress(OSError):  # a process in it has not ended yet; `cumulet down` removes it
                for pid in (group / "cgroup.procs").read_text().split():
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(int(pid), signal.SIGKILL)
                group.rmdir()


def _end_processes(bundle: bytes) -> None:
    """Kill the supervisors and runtimes with that folder in their command line, and wait for their end."""
    for entry in Path("/proc").iterdir():
        if not is_digits(entry.name):
            continue
        try:
            pidfd = os.pidfd_open(int(entry.name))
        except OSError:
            continue
        try:
            command = (entry / "cmdline").read_bytes().split(b"\0")
            if command[0].rpartition(b"/")[2] in (b"conmon", b"runc") and bundle in command:
                signal.pidfd_send_signal(pidfd, signal.SIGKILL)
                poll = select.poll()
                poll.register(pidfd, select.POLLIN)
                poll.poll(_PATIENCE * 1000)
        except OSError:
            pass  # it has ended in the meantime
        finally:
            os.close(pidfd)
