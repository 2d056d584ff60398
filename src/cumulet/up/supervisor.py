"""Runs each room as a process: starts all, restarts those that die, and stops all.

It holds every listening socket and passes it to the rooms, so that a restarting room refuses no connection. It forks
from a single thread, so that rooms share the memory of common modules. Rooms end with it. Their containers do not: the
next start adopts them, or `cleanup` removes them.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import gc
import importlib
import json
import logging
import os
import selectors
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import IO, NoReturn

from cumulet.common import clock, forwarding, logs, private_files, router
from cumulet.common import config as settings
from cumulet.common.config import Config, RoomName
from cumulet.common.nftables import NftablesError
from cumulet.common.room import open_listeners, run
from cumulet.common.table_watch import IPV4, TableWatch
from cumulet.common.tasks import Backoff
from cumulet.up import hosts, renewal

log = logging.getLogger(__name__)

#: Modules that are loaded once and shared with every room.
_PRELOADED = ("aiohttp.web", "cumulet.common.database", "jwt", "msgspec", "ssl", "uvloop", "cryptography.x509")

_PR_SET_PDEATHSIG = 1
_PR_SET_NAME = 15

#: A room that ran for this long, in seconds, is restarted without back-off.
_STABLE = 10.0
#: Seconds in which rooms have to stop before SIGKILL. The last ones get half of it.
_STOP_GRACE = 8.0
#: The room that stops last: its clients release their leases there.
_LAST: RoomName = "kube"
#: The kubelet's value (proc(5), oom_score_adj).
_OOM_SCORE = -999

Report = Callable[[dict[str, object]], None]


class Child:
    """A room: its listening sockets, and its process while it runs. `restart_at` is monotonic time."""

    def __init__(self, name: RoomName, listeners: list[socket.socket]) -> None:
        self.name = name
        self.listeners = listeners
        self.backoff = Backoff(0.05, 5.0)
        self.pid = 0
        self.pidfd = -1
        self.ready_fd = -1
        self.started = 0.0
        self.restart_at: float | None = 0.0


class Supervisor:
    """Runs the rooms of one installation. `run` returns after SIGTERM or SIGINT, when every room has ended."""

    def __init__(self, config: Config, report: Report) -> None:
        self._config = config
        self._report = report
        self._selector = selectors.DefaultSelector()
        self._children: list[Child] = []
        self._stop_by: float | None = None
        self._stops_last = False
        self._renewed = 0.0

    def run(self) -> None:
        """Start the rooms and keep them running.

        Raises `OSError` if an address cannot be bound, `RouterError` and `NftablesError` if the router cannot be made.
        """
        with self._router():
            for name in self._config.rooms:
                self._children.append(Child(name, open_listeners(name, self._config)))
        for module in _PRELOADED:
            importlib.import_module(module)
        gc.collect()
        gc.freeze()  # the collector must not write to shared pages
        self._watch_signals()
        self._watch_login_servers()
        self._watch_certificates()
        while self._stop_by is None or any(child.pid for child in self._children):
            self._start_due()
            for key, _ in self._selector.select(self._patience()):
                key.data()
            if self._stop_by is not None:
                self._continue_stop(self._stop_by - time.monotonic())

    @contextlib.contextmanager
    def _router(self) -> Iterator[None]:
        """Make the router, in which the block opens listeners. A new one is removed if that fails. Only root can make it."""
        if os.geteuid() != 0:
            yield
            return
        is_new = not router.is_there(self._config)
        try:
            router.ensure(self._config)
            self._forward()
            yield
        except BaseException:
            if is_new:
                router.remove(self._config)
            raise

    def _forward(self) -> None:
        """Let pods reach what the machine reaches."""
        forwarding.enable(router.LINK_PREFIX)
        watch = TableWatch(forwarding.TABLE, (IPV4,))

        def changed() -> None:
            if watch.take():
                try:
                    forwarding.load()
                except NftablesError:
                    log.exception("cannot load the table %s, which another program removed", forwarding.TABLE)

        self._selector.register(watch, selectors.EVENT_READ, changed)

    def _watch_signals(self) -> None:
        wake, signalled = socket.socketpair()
        wake.setblocking(False)
        signalled.setblocking(False)
        signal.set_wakeup_fd(signalled.fileno(), warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, lambda *_: self._stop())
        self._selector.register(wake, selectors.EVENT_READ, lambda: wake.recv(64))
        self._wake = (wake, signalled)

    def _watch_login_servers(self) -> None:
        """Keep /etc/hosts up to date with the login servers, if `--hosts` is set."""
        entries = hosts.Hosts(self._config)
        for removed in entries.remove():
            log.info("removed orphan: %s", removed)
        if not hosts.is_enabled(self._config):
            return
        watch = hosts.Watch(self._config)
        entries.update()
        self._selector.register(watch, selectors.EVENT_READ, lambda: self._update_hosts(entries, watch))

    def _update_hosts(self, entries: hosts.Hosts, watch: hosts.Watch) -> None:
        if watch.take():
            try:
                entries.update()
            except OSError:  # such as a full disk; rooms continue without it
                log.exception("cannot write login servers to /etc/hosts")

    def _watch_certificates(self) -> None:
        """Renew certificates when they are due, and make the rooms reload them."""
        timer = renewal.Timer()
        timer.set(renewal.due(self._config))
        self._selector.register(timer, selectors.EVENT_READ, lambda: self._renew(timer))

    def _renew(self, timer: renewal.Timer) -> None:
        timer.take()
        process = renewal.start(self._config)
        pidfd = os.pidfd_open(process)

        def ended() -> None:
            self._selector.unregister(pidfd)
            os.close(pidfd)
            os.waitpid(process, 0)
            timer.set(renewal.due(self._config, after=clock.now()))
            self._renewed = time.monotonic()
            for child in self._children:
                self._reload(child)
            self._renew_hosts()

        self._selector.register(pidfd, selectors.EVENT_READ, ended)

    def _reload(self, child: Child) -> None:
        """Make a room reload its certificates. A room that is not ready yet reloads when it is."""
        if child.pid and child.ready_fd < 0 and self._stop_by is None:
            signal.pidfd_send_signal(child.pidfd, signal.SIGHUP)

    def _renew_hosts(self) -> None:
        """Update the CA certificate of docker and containers/image."""
        if not hosts.is_enabled(self._config):
            return
        try:
            entries = hosts.Hosts(self._config)
            if entries.is_stale():
                entries.remove()
                entries.update()
        except OSError:  # such as a full disk; rooms continue without it
            log.exception("cannot write the CA certificate to certs.d of docker and containers/image")

    def _stop(self) -> None:
        if self._stop_by is None:
            self._stop_by = time.monotonic() + _STOP_GRACE
            self._signal(signal.SIGTERM, [child for child in self._children if child.name != _LAST])

    def _continue_stop(self, left: float) -> None:
        """Stop the last room when the others have ended, and kill those that remain; `left` are the seconds for that."""
        if not self._stops_last and (
            left <= _STOP_GRACE / 2 or not any(child.pid for child in self._children if child.name != _LAST)
        ):
            self._stops_last = True
            self._signal(signal.SIGTERM, [child for child in self._children if child.name == _LAST])
        if left <= 0:
            self._signal(signal.SIGKILL, self._children)

    def _signal(self, number: signal.Signals, children: Iterable[Child]) -> None:
        for child in children:
            if child.pid:
                signal.pidfd_send_signal(child.pidfd, number)

    def _patience(self) -> float | None:
        """Return the seconds until the next deadline that no descriptor signals."""
        if self._stop_by is not None:
            until = self._stop_by - (0 if self._stops_last else _STOP_GRACE / 2)
            return max(until - time.monotonic(), 0.1)
        due = [child.restart_at for child in self._children if child.restart_at is not None]
        return max(min(due) - time.monotonic(), 0) if due else None

    def _start_due(self) -> None:
        if self._stop_by is not None:
            return
        started = [
            child for child in self._children if child.restart_at is not None and child.restart_at <= time.monotonic()
        ]
        for child in started:
            self._start(child)
        if started:
            self._record()

    def _start(self, child: Child) -> None:
        child.restart_at = None
        child.started = time.monotonic()
        ready, ready_write = os.pipe()
        parent = os.getpid()
        child.pid = os.fork()
        if child.pid == 0:
            os.close(ready)
            self._become(child, ready_write, parent)
        os.close(ready_write)
        child.pidfd = os.pidfd_open(child.pid)
        child.ready_fd = ready
        self._selector.register(child.pidfd, selectors.EVENT_READ, lambda: self._ended(child))
        self._selector.register(ready, selectors.EVENT_READ, lambda: self._is_ready(child))

    def _become(self, child: Child, ready_write: int, parent: int) -> NoReturn:
        """Run the room in the forked process."""
        code = 1
        try:
            signal.set_wakeup_fd(-1)
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
                signal.signal(number, signal.SIG_DFL)
            libc = ctypes.CDLL(None, use_errno=True)
            libc.prctl(_PR_SET_NAME, f"cumulet:{child.name}"[:15].encode(), 0, 0, 0)
            libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
            if os.getppid() != parent:  # the supervisor died before prctl took effect
                os._exit(1)
            self._selector.close()
            for other in self._children:
                if other is not child:
                    for listener in other.listeners:
                        listener.close()
            module = importlib.import_module(f"cumulet.{child.name}.room")
            run(
                child.name,
                self._config,
                module.serve,
                listeners=child.listeners,
                on_ready=lambda: _report_ready(ready_write),
                log_file=log_file(self._config, child.name),
                **({"new_event_loop": module.new_event_loop} if hasattr(module, "new_event_loop") else {}),
            )
            code = 0
        except BaseException:
            logging.getLogger(__name__).exception("the room %s failed", child.name)
        finally:
            logging.shutdown()
            os._exit(code)

    def _is_ready(self, child: Child) -> None:
        if os.read(child.ready_fd, 1):
            seconds = time.monotonic() - child.started
            log.info("room %s is ready", child.name, extra={"seconds": round(seconds, 3), "pid": child.pid})
            self._report({"room": child.name, "event": "ready"})
        self._close_ready(child)
        if child.started < self._renewed:
            self._reload(child)

    def _close_ready(self, child: Child) -> None:
        if child.ready_fd >= 0:
            self._selector.unregister(child.ready_fd)
            os.close(child.ready_fd)
            child.ready_fd = -1

    def _ended(self, child: Child) -> None:
        _, status = os.waitpid(child.pid, 0)
        code = os.waitstatus_to_exitcode(status)
        self._selector.unregister(child.pidfd)
        os.close(child.pidfd)
        self._close_ready(child)
        child.pid = 0
        if self._stop_by is not None:
            return
        if time.monotonic() - child.started >= _STABLE:
            child.backoff.reset()
        delay = child.backoff.next()
        child.restart_at = time.monotonic() + delay
        log.warning("room %s ended and is restarted", child.name, extra={"exit_code": code, "delay": round(delay, 2)})
        self._report({"room": child.name, "event": "ended", "code": code})

    def _record(self) -> None:
        """Write the process id of each room, for `cumulet status`."""
        pids = {"supervisor": os.getpid()} | {child.name: child.pid for child in self._children if child.pid}
        private_files.write_private(pids_file(self._config), json.dumps(pids).encode())


def _report_ready(descriptor: int) -> None:
    os.write(descriptor, b"1")
    os.close(descriptor)


def log_file(config: Config, name: str) -> Path:
    """Return the log file of a room."""
    return config.data_dir / "logs" / f"{name}.log"


def pids_file(config: Config) -> Path:
    """Return the file with the process ids of the supervisor and the rooms, a JSON object."""
    return config.data_dir / "run" / "pids.json"


def take_lock(data_dir: Path) -> IO[bytes] | None:
    """Take the supervisor's lock on an installation. Return `None` if another process holds it. Raises `ConfigError`."""
    settings.demand_own(data_dir)
    path = data_dir / "run" / "lock"
    private_files.private_folder(path.parent)
    file = path.open("ab")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        return None
    return file


def main(arguments: list[str]) -> None:
    """`python -m cumulet.up.supervisor DATA_DIR [REPORT_FD]`: supervise until SIGTERM, then clean up."""
    config = settings.load(Path(arguments[0]))
    logs.configure("supervisor", log_file(config, "supervisor"))
    reports = os.fdopen(int(arguments[1]), "w", buffering=1) if len(arguments) > 1 else None

    def report(line: dict[str, object]) -> None:
        nonlocal reports
        if reports is not None:
            try:
                print(json.dumps(line), file=reports, flush=True)
            except BrokenPipeError:  # the reader has ended; the logs have the reports
                reports = None

    lock = take_lock(config.data_dir)
    if lock is None:
        report({"event": "failed", "message": "already running. Check it with `cumulet status`"})
        sys.exit(1)
    # The kernel must kill containers before rooms when memory is short. Without the privilege to set this, the higher
    # scores of the containers have the same effect.
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(str(_OOM_SCORE))
    try:
        Supervisor(config, report).run()
    except (OSError, router.RouterError, NftablesError) as error:
        log.exception("cannot supervise")
        report({"event": "failed", "message": str(error)})
        sys.exit(1)
    finally:
        pids_file(config).unlink(missing_ok=True)
    from cumulet.instances.cleanup import cleanup

    for removed in [*hosts.Hosts(config).remove(), *cleanup(config)]:
        log.info("removed %s", removed)
    lock.close()


if __name__ == "__main__":
    main(sys.argv[1:])
