"""Measures the API server against its bounds and against a kube-apiserver 1.36 with etcd: `make bench-kube`.

The peer's figures were recorded on a machine with two processors. If CUMULET_KUBERNETES_BIN names a folder with its
programs, it is measured after ours (`kube_peer`), its current figures are shown, and bounds scale with them.

Clients are separate processes (`kube_load`) on the same machine. They use TLS with a client certificate. Every create is
durable before the response. Processor time is the server's per request, of all its threads. On a shared machine it is a
better measure than the rate.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import msgspec

from benchmarks import kube_custom, kube_floor, kube_peer
from benchmarks.kube_objects import node, pod
from cumulet.common import tls
from cumulet.common.config import DEFAULT_PORTS, Config, RoomName
from cumulet.up.install import install
from cumulet.up.lifecycle import resident_bytes

_ROOM = """
import importlib, sys
from pathlib import Path
from cumulet.common.config import load
from cumulet.common.room import run
room = importlib.import_module(f"cumulet.{sys.argv[2]}.room")
loop = {"new_event_loop": room.new_event_loop} if hasattr(room, "new_event_loop") else {}
run(sys.argv[2], load(Path(sys.argv[1])), room.serve, **loop)
"""
#: client-go's first cipher. Python's clients offer another.
_OPENSSL = """
openssl_conf = settings
[settings]
ssl_conf = modules
[modules]
system_default = ciphers
[ciphers]
Ciphersuites = TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384
"""
_CONNECTIONS = 16
_LISTED = 4083
_PODS = "/api/v1/namespaces/bench/pods"
_WATCHERS, _CHANGES, _SECONDS = 1000, 100, 5
_WRITERS = 8
_TO_SCHEDULE, _NODES = 10_000, 100
_WATCHED = "1,000 watchers, 100 changes/s, p99"


class Bound(NamedTuple):
    """The bound of a figure, and the peer's recorded figure."""

    limit: float
    at_least: bool
    unit: str
    peer: float | None = None


_BOUNDS = {
    "ready from a cold start": Bound(1.0, False, "s", 2.9),
    "memory, fresh": Bound(120, False, "MB", 331),
    "pod creates": Bound(1200, True, "/s", 811),
    "pod GETs": Bound(5500, True, "/s", 1852),
    "list of 4,083 pods": Bound(0.25, False, "s", 0.51),
    "memory with 5,000 pods": Bound(250, False, "MB", 650),
    _WATCHED: Bound(0.1, False, "s"),
    "ratio of create p99 at 10,000 pods to that of an empty store": Bound(2.0, False, "x"),
    "10,000 pods scheduled": Bound(800, True, "/s"),
    kube_custom.APPLY: Bound(1.3, False, "x"),
    kube_custom.DELETE: Bound(10, False, "s"),
    kube_custom.MEMORY: Bound(220, False, "MB"),
}


def main() -> None:
    """Measure and print. Exit with 1 if a bound is missed and `--check` is given."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="exit with 1 if a bound is missed")
    parser.add_argument("--only", default="", help="measure one part: requests, watch, schedule or custom")
    arguments = parser.parse_args()
    found: dict[str, float] = {}
    peer: dict[str, float] = {}
    if arguments.only in ("", "requests", "watch"):
        with _installation() as config, _room(config, "kube") as process:
            server = _Server(config, process.pid)
            found |= _measure(server, arguments.only)
            if arguments.only != "requests":
                _show_floor(server, config)
    if arguments.only in ("", "requests", "watch") and kube_peer.is_installed():
        print(f"{kube_peer.NAME}:")
        with (
            tempfile.TemporaryDirectory(prefix="cumulet-bench-") as name,
            kube_peer.running(Path(name)) as (
                config,
                processes,
            ),
        ):
            peer = _compared(_Server(config, *processes), arguments.only)
            peer.pop("ready from a cold start", None)  # it was started before
    if arguments.only in ("", "schedule"):
        with _installation() as config, _room(config, "kube") as process:
            found["10,000 pods scheduled"] = _schedule(_Server(config, process.pid), config)
    if arguments.only in ("", "custom"):
        with (
            _installation() as config,
            _room(config, "kube") as process,
            _installation() as other,
            _room(other, "kube") as second,
        ):
            servers = _Server(config, process.pid), _Server(other, second.pid)
            for server in servers:
                _namespace(server)
            found |= kube_custom.measure(*servers)
    missed = _print(found, peer)
    raise SystemExit(1 if arguments.check and missed else 0)


@contextlib.contextmanager
def _installation() -> Iterator[Config]:
    with tempfile.TemporaryDirectory(prefix="cumulet-bench-") as name:
        yield install(Path(name) / "data", ports=dict.fromkeys(DEFAULT_PORTS, 0))


@contextlib.contextmanager
def _room(config: Config, name: RoomName) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen([sys.executable, "-c", _ROOM, str(config.data_dir), name])
    try:
        yield process
    finally:
        process.terminate()
        process.wait()


class _Metadata(msgspec.Struct, frozen=True, rename="camel"):
    resource_version: str = ""


class _Object(msgspec.Struct, frozen=True):
    """The fields of a response that are read here."""

    metadata: _Metadata = _Metadata()


class _Server:
    """An API server for clients, with its memory and processor time."""

    def __init__(self, config: Config, *processes: int) -> None:
        self._processes = processes
        self._address = config.addresses["kube"]
        certificate, key = config.user_files()
        self._tls = tls.client_context(config.ca_file, certificate, key)
        self._job = {
            "host": self._address.host,
            "port": self._address.port,
            "ca": str(config.ca_file),
            "certificate": str(certificate),
            "key": str(key),
        }

    def megabytes(self) -> float:
        """Return the resident memory in megabytes."""
        return sum(resident_bytes(process) or 0 for process in self._processes) / 1e6

    def spent(self) -> float:
        """Return the processor time so far in seconds, user and system."""
        ticks = 0
        for process in self._processes:
            fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
            ticks += int(fields[11]) + int(fields[12])
        return ticks / os.sysconf("SC_CLK_TCK")

    def connection(self) -> http.client.HTTPSConnection:
        """Return a new connection."""
        return http.client.HTTPSConnection(self._address.host, self._address.port, context=self._tls, timeout=60)

    def call(self, method: str, path: str, body: object = None) -> _Object:
        """Send a request on a new connection. Raises `OSError` if it does not succeed."""
        connection = self.connection()
        try:
            return send(connection, method, path, body)
        finally:
            connection.close()

    def load(self, name: str, count: int, *, connections: int = _CONNECTIONS, **job: str | int) -> dict[str, float]:
        """Send `count` requests, print the server's and the client's time per request, and return the client's figures."""
        given = {"first": 0, "count": count, "connections": connections, **job}
        before = self.spent()
        found = self._run({**self._job, "requests": given})
        server = (self.spent() - before) / count * 1e3
        print(
            f"  {name}: {found['rate']:,.0f}/s, p50 {found['p50'] * 1e3:.1f} ms, p99 {found['p99'] * 1e3:.1f} ms; "
            f"processor: server {server:.3f} ms, client {found['cpu'] / count * 1e3:.3f} ms per request",
            flush=True,
        )
        return found

    def _run(self, job: Mapping[str, object]) -> dict[str, float]:
        with load_client(job) as process:
            assert process.stdout is not None
            found: dict[str, float] = json.loads(process.stdout.readline())
            return found

    def watched(self, rate: int, seconds: int) -> float:
        """Return the 99th percentile of the seconds until a watcher receives a change."""
        version = self.call("GET", f"{_PODS}?limit=1").metadata.resource_version
        watch = {"path": f"{_PODS}?watch=true&resourceVersion={version}", "watchers": _WATCHERS}
        changes = {
            "count": rate * seconds,
            "rate": rate,
            "connections": _WRITERS,
            "path": f"{_PODS}/pod-%d",
            "body": json.dumps({"metadata": {"annotations": {"bench/sent": "%m"}}}),
            "media": "application/merge-patch+json",
        }
        with load_client({**self._job, "watch": watch}) as process:
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdout.readline()
            print(f"  {_WATCHERS:,} watchers: {self.megabytes():.0f} MB")
            before = self.spent()
            changed = self._run({**self._job, "changes": changes})
            process.stdin.write(f"{changed['mark']}\n")
            process.stdin.flush()
            found = json.loads(process.stdout.readline())
            server = self.spent() - before
        print(
            f"  {rate * seconds} changes in {changed['seconds']:.1f} s, complete at {found['complete']:,} of {_WATCHERS:,}, "
            f"p50 {found['p50'] * 1e3:.0f} ms, p99 {found['p99'] * 1e3:.0f} ms; "
            f"processor: server {server:.2f} s, client {found['watching']:.2f} s"
        )
        return float(found["p99"]) if found["complete"] == _WATCHERS else float("inf")


@contextlib.contextmanager
def load_client(job: Mapping[str, object]) -> Iterator[subprocess.Popen[str]]:
    """Run `kube_load` with a job, in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.kube_load"]
    pipe = subprocess.PIPE
    with tempfile.NamedTemporaryFile("w", suffix=".cnf") as settings:
        settings.write(_OPENSSL)
        settings.flush()
        environment = {**os.environ, "OPENSSL_CONF": settings.name}
        process = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, env=environment)
        with process:
            assert process.stdin is not None
            process.stdin.write(json.dumps(job) + "\n")
            process.stdin.flush()
            yield process
    if process.returncode:
        raise SystemExit(process.returncode)


def send(connection: http.client.HTTPSConnection, method: str, path: str, body: object = None) -> _Object:
    """Send a request and return the decoded object, empty if the response is not JSON. Raises `OSError` if it does not succeed."""
    kind = "application/merge-patch+json" if method == "PATCH" else "application/json"
    connection.request(method, path, None if body is None else json.dumps(body), {"Content-Type": kind})
    response = connection.getresponse()
    data = response.read()
    if response.status >= 300:
        raise OSError(data.decode())
    is_json = response.headers.get_content_type() == "application/json"
    return msgspec.json.decode(data, type=_Object) if is_json else _Object()


def _namespace(server: _Server) -> float:
    """Wait until the server is ready, create a namespace, and return the seconds of the wait."""
    began = time.perf_counter()
    while True:
        try:
            server.call("GET", "/readyz")
            break
        except ConnectionError:
            time.sleep(0.01)
    ready = time.perf_counter() - began
    server.call("POST", "/api/v1/namespaces", {"metadata": {"name": "bench"}})
    server.call("POST", "/api/v1/namespaces/bench/serviceaccounts", {"metadata": {"name": "default"}})
    return ready


def _measure(server: _Server, only: str) -> dict[str, float]:
    found = _compared(server, only)
    if only:
        return found
    _create(server, "creates", 5000, first=5000)
    last = _create(server, "creates at 10,000 pods", 1000, first=10_000)
    found["ratio of create p99 at 10,000 pods to that of an empty store"] = last["p99"] / found.pop("first p99")
    return found


def _compared(server: _Server, only: str) -> dict[str, float]:
    """Return the figures that are measured for the peer too."""
    if only == "watch":
        _namespace(server)
        _create(server, "creates", 1000)
        return _watched(server)
    found = _requests(server)
    if only == "requests":
        return found
    _create(server, "creates", 5000 - _LISTED, first=_LISTED)
    found["memory with 5,000 pods"] = server.megabytes()
    return found | _watched(server)


def _watched(server: _Server) -> dict[str, float]:
    """Return the median of three: both processors are busy, so other work on the machine changes the result."""
    return {_WATCHED: statistics.median(server.watched(_CHANGES, _SECONDS) for _ in range(3))}


def _show_floor(server: _Server, config: Config) -> None:
    """Print what the same watches cost without an API server."""
    connection = server.connection()
    connection.request("GET", f"{_PODS}/pod-0")
    size = kube_floor.line_size(connection.getresponse().read())
    connection.close()
    kube_floor.show(config, load_client, size=size, watchers=_WATCHERS, rate=_CHANGES, seconds=_SECONDS)


def _requests(server: _Server) -> dict[str, float]:
    found = {"ready from a cold start": _namespace(server)}
    found["memory, fresh"] = server.megabytes()
    found["first p99"] = _create(server, "first creates", 1000)["p99"]
    found["pod creates"] = _create(server, "creates", _LISTED - 1000, first=1000)["rate"]
    connection = server.connection()
    lists = []
    for _ in range(5):
        connection.request("GET", _PODS)
        start = time.perf_counter()
        size = len(connection.getresponse().read())
        lists.append(time.perf_counter() - start)
    connection.close()
    found["list of 4,083 pods"] = statistics.median(lists)
    print(f"  size of a list: {size / 1e6:.1f} MB")
    server.load("compressed lists", 4, connections=1, method="GET", path=_PODS, encoding="gzip")
    found["pod GETs"] = server.load("GETs", 20_000, method="GET", path=f"{_PODS}/pod-2000")["rate"]
    return found


def _create(server: _Server, name: str, count: int, first: int = 0) -> dict[str, float]:
    return server.load(name, count, first=first, method="POST", path=_PODS, body=json.dumps(pod()))


def _schedule(server: _Server, config: Config) -> float:
    """Return the pods per second that the scheduler binds, from the first to the last."""
    _namespace(server)
    for number in range(_NODES):
        server.call("POST", "/api/v1/nodes", node(number))
    _create(server, "creates", _TO_SCHEDULE)
    connection = server.connection()
    version = server.call("GET", f"{_PODS}?limit=1").metadata.resource_version
    selector = f"watch=true&resourceVersion={version}&fieldSelector=spec.nodeName!="
    accept = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"
    connection.request("GET", f"{_PODS}?{selector}", headers={"Accept": accept})
    events = connection.getresponse()
    before = server.spent()
    placed = 0
    began = 0.0
    with _room(config, "scheduler"):
        while placed < _TO_SCHEDULE and (line := events.readline()):
            if b'"type":"ADDED"' in line:
                began = began or time.perf_counter()
                placed += 1
        seconds = time.perf_counter() - began
    connection.close()
    print(f"  {placed:,} pods bound; processor: server {(server.spent() - before) / placed * 1e3:.3f} ms per pod")
    return placed / seconds


def _print(found: dict[str, float], live: dict[str, float]) -> int:
    missed = 0
    for name, bound in _BOUNDS.items():
        if name not in found:
            continue
        value, limit, once = found[name], bound.limit, bound.peer
        beside = live.get(name, once)
        word = "at least" if bound.at_least else "at most"
        text = f"{word} {limit:g}"
        if name in live and once and bound.unit != "MB":
            # A slower machine is slower for the peer too.
            limit *= live[name] / once
            text += f", on this machine {limit:.4g}"
        holds = value >= limit if bound.at_least else value <= limit
        missed += not holds
        peer = (
            f"; {'peer' if name in live else 'recorded peer'} {beside:,.4g}, ratio {value / beside:.2f}"
            if beside
            else ""
        )
        print(f"{name}: {value:,.2f} {bound.unit} ({text}{peer}){'' if holds else '  MISSED'}")
    return missed


if __name__ == "__main__":
    main()
