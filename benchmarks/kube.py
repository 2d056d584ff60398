"""The API server alone, against its bounds and a kube-apiserver 1.36 with etcd: `make bench-kube`.

The peer's figures are those that were recorded once, on a machine of two processors. Where CUMULET_KUBERNETES_BIN names a
folder with its programs, it is measured right after ours (`kube_peer`): then its own figures are shown, and what is asked
of a rate is as many times its rate as it was once.

Clients are processes of their own (`kube_load`) on the same machine. Everything goes over TLS with a client certificate;
every create is durable before it is answered. Processor time is that of the server for one request, of all its threads:
it tells more than the rate does on a machine that is shared.
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
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks import kube_custom, kube_peer
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
#: The cipher that client-go offers first; Python's own clients offer another.
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
    """What is asked of a figure, and what the peer had once."""

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
    "create p99 at 10,000 pods to that of an empty store": Bound(2.0, False, "x"),
    "10,000 pods scheduled": Bound(800, True, "/s"),
    kube_custom.APPLY: Bound(1.3, False, "x"),
    kube_custom.DELETE: Bound(10, False, "s"),
    kube_custom.MEMORY: Bound(220, False, "MB"),
}


def main() -> None:
    """Measure and print; ends with 1 where a bound is missed and `--check` is given."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="fail where a bound is missed")
    parser.add_argument("--only", default="", help="a part alone: requests, watch, schedule, custom")
    arguments = parser.parse_args()
    found: dict[str, float] = {}
    peer: dict[str, float] = {}
    if arguments.only in ("", "requests", "watch"):
        with _installation() as config, _room(config, "kube") as process:
            found |= _measure(_Server(config, process.pid), arguments.only)
    if arguments.only in ("", "requests", "watch") and kube_peer.is_there():
        print(f"the same of {kube_peer.NAME}:")
        with (
            tempfile.TemporaryDirectory(prefix="cumulet-bench-") as name,
            kube_peer.running(Path(name)) as (
                config,
                processes,
            ),
        ):
            peer = _compared(_Server(config, *processes), arguments.only)
            peer.pop("ready from a cold start", None)  # it was ready before
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


class _Server:
    """The room as its clients see it, and what it spends."""

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
        """Resident memory."""
        return sum(resident_bytes(process) or 0 for process in self._processes) / 1e6

    def spent(self) -> float:
        """Processor seconds so far, of user and system."""
        ticks = 0
        for process in self._processes:
            fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
            ticks += int(fields[11]) + int(fields[12])
        return ticks / os.sysconf("SC_CLK_TCK")

    def connection(self) -> http.client.HTTPSConnection:
        """A connection to call on."""
        return http.client.HTTPSConnection(self._address.host, self._address.port, context=self._tls, timeout=60)

    def call(self, method: str, path: str, body: Any = None) -> Any:
        """One request on a connection of its own. Raises `OSError` where it is not answered with success."""
        connection = self.connection()
        try:
            return send(connection, method, path, body)
        finally:
            connection.close()

    def load(self, name: str, count: int, *, connections: int = _CONNECTIONS, **job: Any) -> dict[str, float]:
        """So many requests; prints what one took of the server and of the client."""
        given = {"first": 0, "count": count, "connections": connections, **job}
        before = self.spent()
        found = self._run({**self._job, "requests": given})
        server = (self.spent() - before) / count * 1e3
        print(
            f"  {name}: {found['rate']:,.0f}/s, p50 {found['p50'] * 1e3:.1f} ms, p99 {found['p99'] * 1e3:.1f} ms; "
            f"processor: server {server:.3f} ms, client {found['cpu'] / count * 1e3:.3f} ms a request",
            flush=True,
        )
        return found

    def _run(self, job: Any) -> dict[str, Any]:
        with self._client(job) as process:
            assert process.stdout is not None
            found: dict[str, Any] = json.loads(process.stdout.readline())
            return found

    @contextlib.contextmanager
    def _client(self, job: Any) -> Iterator[subprocess.Popen[str]]:
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

    def watched(self, rate: int, seconds: int) -> float:
        """The 99th percentile of the time until each of the watchers sees a change."""
        version = self.call("GET", f"{_PODS}?limit=1")["metadata"]["resourceVersion"]
        watch = {"path": f"{_PODS}?watch=true&resourceVersion={version}", "watchers": _WATCHERS}
        changes = {
            "count": rate * seconds,
            "rate": rate,
            "connections": _WRITERS,
            "path": f"{_PODS}/pod-%d",
            "body": json.dumps({"metadata": {"annotations": {"bench/sent": "%m"}}}),
            "media": "application/merge-patch+json",
        }
        with self._client({**self._job, "watch": watch}) as process:
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
            f"  {rate * seconds} changes in {changed['seconds']:.1f} s, all seen by {found['complete']:,} of {_WATCHERS:,}, "
            f"p50 {found['p50'] * 1e3:.0f} ms, p99 {found['p99'] * 1e3:.0f} ms; "
            f"processor: server {server:.2f} s, client {found['watching']:.2f} s"
        )
        return float(found["p99"]) if found["complete"] == _WATCHERS else float("inf")


def send(connection: http.client.HTTPSConnection, method: str, path: str, body: Any = None) -> Any:
    """One request. Raises `OSError` where it is not answered with success."""
    kind = "application/merge-patch+json" if method == "PATCH" else "application/json"
    connection.request(method, path, None if body is None else json.dumps(body), {"Content-Type": kind})
    response = connection.getresponse()
    data = response.read()
    if response.status >= 300:
        raise OSError(data.decode())
    return json.loads(data) if response.headers.get_content_type() == "application/json" else data


def _namespace(server: _Server) -> float:
    """Wait until the server is ready, make a namespace, and tell how long the wait was."""
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
    found["create p99 at 10,000 pods to that of an empty store"] = last["p99"] / found.pop("first p99")
    return found


def _compared(server: _Server, only: str) -> dict[str, float]:
    """What the peer is measured by too."""
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
    """The middle one of three, as both processors are full, so that whatever else the machine does counts."""
    return {_WATCHED: statistics.median(server.watched(_CHANGES, _SECONDS) for _ in range(3))}


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
    print(f"  a list of {size / 1e6:.1f} MB")
    server.load("lists that are compressed", 4, connections=1, method="GET", path=_PODS, encoding="gzip")
    found["pod GETs"] = server.load("GETs", 20_000, method="GET", path=f"{_PODS}/pod-2000")["rate"]
    return found


def _create(server: _Server, name: str, count: int, first: int = 0) -> dict[str, float]:
    return server.load(name, count, first=first, method="POST", path=_PODS, body=json.dumps(_pod()))


def _schedule(server: _Server, config: Config) -> float:
    """Pods a second that our scheduler places, from the first placed to the last."""
    _namespace(server)
    for number in range(_NODES):
        server.call("POST", "/api/v1/nodes", _node(number))
    _create(server, "creates", _TO_SCHEDULE)
    connection = server.connection()
    version = server.call("GET", f"{_PODS}?limit=1")["metadata"]["resourceVersion"]
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
    print(f"  {placed:,} pods placed; processor: server {(server.spent() - before) / placed * 1e3:.3f} ms a pod")
    return placed / seconds


def _print(found: dict[str, float], live: dict[str, float]) -> int:
    missed = 0
    for name, bound in _BOUNDS.items():
        if name not in found:
            continue
        value, limit, once = found[name], bound.limit, bound.peer
        beside = live.get(name, once)
        word = "at least" if bound.at_least else "at most"
        asked = f"{word} {limit:g}"
        if name in live and once and bound.unit != "MB":
            # A machine that is slower for the peer too is no fault of ours.
            limit *= live[name] / once
            asked += f", here {limit:.4g}"
        holds = value >= limit if bound.at_least else value <= limit
        missed += not holds
        peer = (
            f"; {'peer' if name in live else 'peer once'} {beside:,.4g}, {value / beside:.2f} of it" if beside else ""
        )
        print(f"{name}: {value:,.2f} {bound.unit} ({asked}{peer}){'' if holds else '  MISSED'}")
    return missed


def _pod() -> dict[str, Any]:
    """A pod as a deployment's template makes them; `%d` is its number. Stored it is of some 4.9 kB."""
    containers = []
    for name, port in (("web", 8080), ("proxy", 9090)):
        probe = {"httpGet": {"path": "/healthz", "port": port}, "initialDelaySeconds": 3, "periodSeconds": 15}
        containers.append(
            {
                "name": name,
                "image": f"acrdemo2ss.azurecr.io/app3/{name}:v1",
                "args": [f"--listen=:{port}", "--log-format=json", "--graceful-shutdown=20s"],
                "ports": [{"name": "http", "containerPort": port}],
                "env": [
                    {"name": "POD_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
                    {"name": "LEVEL", "value": "info"},
                ],
                "resources": {
                    "requests": {"cpu": "10m", "memory": "16Mi"},
                    "limits": {"cpu": "500m", "memory": "128Mi"},
                },
                "readinessProbe": probe,
                "securityContext": {"allowPrivilegeEscalation": False, "runAsNonRoot": True, "runAsUser": 1000},
            }
        )
    labels = {"app.kubernetes.io/name": "web", "app.kubernetes.io/instance": "bench", "number": "n-%d"}
    annotations = {"prometheus.io/scrape": "true", "prometheus.io/port": "9090"}
    metadata = {"name": "pod-%d", "labels": labels, "annotations": annotations}
    toleration = {"key": "virtual-kubelet.io/provider", "operator": "Exists", "effect": "NoSchedule"}
    spec = {"containers": containers, "tolerations": [toleration], "nodeSelector": {"kubernetes.io/os": "linux"}}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}


def _node(number: int) -> dict[str, Any]:
    room = {"cpu": "64", "memory": "256Gi", "pods": "250"}
    return {
        "metadata": {"name": f"node-{number}", "labels": {"kubernetes.io/os": "linux"}},
        "status": {"capacity": room, "allocatable": room, "conditions": [{"type": "Ready", "status": "True"}]},
    }


if __name__ == "__main__":
    main()
