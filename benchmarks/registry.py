"""Compares the registry with Debian's docker-registry: `make bench-registry`.

Both serve HTTPS with the installation's certificate from folders on the same disk, and are measured in turns (ours, peer,
ours, peer …). It prints medians and their ratio. Both encrypt with AES-128-GCM (`openssl.cnf`). By default OpenSSL's
clients would get AES-256 from ours, and AES-128 from the peer, which chooses the cipher. Ours checks a bearer token with
each request and writes its access log; the peer does neither. `wrk` reads from both, and `benchmarks.push` pushes to
both, on the same machine as the server.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from benchmarks.push import MANIFEST_TYPE, Image, Target
from cumulet.common.config import RoomName
from cumulet.up.lifecycle import resident_bytes
from tests.cloud import Cloud
from tests.instances.images import wait_for_port

_ROOM = """
import importlib, socket, sys
from pathlib import Path
from cumulet.common.config import load
from cumulet.common.room import run
name, data_dir, ready, *sockets = sys.argv[1:]
room = importlib.import_module(f"cumulet.{name}.room")
listeners = [socket.socket(fileno=int(number)) for number in sockets]
more = {"new_event_loop": room.new_event_loop} if hasattr(room, "new_event_loop") else {}
run(name, load(Path(data_dir)), room.serve, listeners=listeners, on_ready=open(int(ready), "w").close,
    log_file=Path(data_dir) / "logs" / f"{name}.log", **more)
"""
_CONNECTIONS = 16
_BLOB = 10_000_000
_LAYERS, _LAYER = 8, 50_000_000
_FEW, _MANY = 10, 10_000


class Bound(NamedTuple):
    """The bound of a figure."""

    limit: float
    at_least: bool
    unit: str


_BOUNDS = {
    "manifest GET by tag, ratio of rate to the peer's": Bound(4.0, True, "x"),
    "10 MB blob GET, ratio of throughput to the peer's": Bound(1.2, True, "x"),
    "push of a 400 MB image, ratio of time to the peer's": Bound(0.8, False, "x"),
    "memory, idle": Bound(120, False, "MB"),
    "memory, peak under that load": Bound(200, False, "MB"),
    "manifest GET, ratio of median latency at 10,000 repositories to that at 10": Bound(1.25, False, "x"),
}


class _Cloud(Cloud):
    """Rooms in processes that share no memory with this one, so that their memory can be measured."""

    def start(self, name: RoomName) -> None:
        """Start a room and wait until it is ready."""
        ready, ready_write = os.pipe()
        sockets = [listener.fileno() for listener in self._listeners[name]]
        process = subprocess.Popen(
            [sys.executable, "-c", _ROOM, name, str(self.config.data_dir), str(ready_write), *map(str, sockets)],
            pass_fds=[ready_write, *sockets],
        )
        self._running[name] = process.pid
        os.close(ready_write)
        with open(ready, "rb") as file:  # noqa: PTH123
            file.read()

    def processes(self, name: RoomName) -> list[int]:
        """Return the process of a room and its children."""
        pid = self._running[name]
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        return [pid, *map(int, children)]


class _Ours:
    """The room `registry` with one registry."""

    name = "ours"

    def __init__(self, folder: Path) -> None:
        self.cloud = _Cloud(folder / "data", "arm", "registry")
        group = f"{self.cloud.subscription}/resourceGroups/bench"
        registry = f"{group}/providers/Microsoft.ContainerRegistry/registries/bench1"
        self.cloud.arm("PUT", f"{group}?api-version=2022-09-01", {"location": "eastus"})
        body = {"location": "eastus", "sku": {"name": "Premium"}, "properties": {"adminUserEnabled": True}}
        assert self.cloud.arm("PUT", f"{registry}?api-version=2023-07-01", body).status == 201
        answer = self.cloud.arm("POST", f"{registry}/listCredentials?api-version=2023-07-01")
        self._password = answer.body["passwords"][0]["value"]
        self.port = self.cloud.config.addresses["registry"].port

    def target(self, *repositories: str) -> Target:
        """Return the address with a new token for these repositories."""
        form = {"grant_type": "password", "service": "bench1.azurecr.io", "username": "bench1"}
        form |= {
            "password": self._password,
            "scope": " ".join(f"repository:{name}:pull,push" for name in repositories),
        }
        answer = self.cloud.call("registry", "POST", "/oauth2/token", form=form)
        return Target("127.0.0.1", self.port, str(self.cloud.config.ca_file), answer.body["access_token"])

    def memory(self) -> float:
        """Return the memory of the room in megabytes."""
        return sum(resident_bytes(pid) or 0 for pid in self.cloud.processes("registry")) / 1e6


class _Peer:
    """Debian's docker-registry."""

    name = "peer"

    def __init__(self, cloud: Cloud, folder: Path, port: int) -> None:
        self._ca = str(cloud.config.ca_file)
        self.port = port
        certificate, key = cloud.config.certificate_files("registry")
        settings = {
            "version": "0.1",
            "log": {"level": "error", "accesslog": {"disabled": True}},
            "storage": {"filesystem": {"rootdirectory": str(folder / "peer")}},
            "http": {
                "addr": f"127.0.0.1:{port}",
                "tls": {"certificate": str(certificate), "key": str(key)},
            },
        }
        (folder / "peer.yml").write_text(json.dumps(settings))  # JSON is YAML
        self.process = subprocess.Popen(
            [shutil.which("docker-registry") or "docker-registry", "serve", str(folder / "peer.yml")],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        wait_for_port("127.0.0.1", port, self.process)

    def target(self, *repositories: str) -> Target:
        """Return the address."""
        return Target("127.0.0.1", self.port, self._ca, "")

    def memory(self) -> float:
        """Return the memory of the process in megabytes."""
        return (resident_bytes(self.process.pid) or 0) / 1e6


_Server = _Ours | _Peer


class _Wrk(NamedTuple):
    """Figures of `wrk`: requests per second, median and 99th percentile of the latency in milliseconds."""

    rate: float
    median: float
    p99: float


def main() -> None:
    """Measure and print. Exit with 1 if a bound is missed and `--check` is given."""
    if "OPENSSL_CONF" not in os.environ:
        settings = {"OPENSSL_CONF": str(Path(__file__).with_name("openssl.cnf"))}
        os.execve(sys.executable, [sys.executable, "-m", __spec__.name, *sys.argv[1:]], os.environ | settings)  # noqa: S606
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=5, help="duration of each reading")
    parser.add_argument("--only", choices=["manifest", "blob", "push", "many"], help="measure one part")
    parser.add_argument("--check", action="store_true", help="exit with 1 if a bound is missed")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="cumulet-bench-") as name, _servers(Path(name)) as (ours, peer):
        found = _measure(ours, peer, options, Path(name))
    missed = _print(found)
    raise SystemExit(1 if options.check and missed else 0)


@contextlib.contextmanager
def _servers(folder: Path) -> Iterator[tuple[_Ours, _Peer]]:
    ours = _Ours(folder)
    try:
        peer = _Peer(ours.cloud, folder, ours.cloud.config.addresses["node"].port)
        try:
            yield ours, peer
        finally:
            peer.process.send_signal(signal.SIGTERM)
            peer.process.wait()
    finally:
        ours.cloud.close()


def _measure(ours: _Ours, peer: _Peer, options: argparse.Namespace, folder: Path) -> dict[str, float]:
    found: dict[str, float] = {"memory, idle": ours.memory()}
    servers: tuple[_Server, ...] = (ours, peer)
    parts = {options.only} if options.only else {"manifest", "blob", "push", "many"}
    small = Image.make(folder / "small", [_BLOB])
    for server in servers:
        small.push(server.target("bench/app"), "bench/app", "v1")
    with _watch_memory(ours) as memory:
        if "manifest" in parts:
            rates = _in_turn(servers, options, "manifest GET by tag, requests/s", "bench/app/manifests/v1")
            found["manifest GET by tag, ratio of rate to the peer's"] = rates["ours"] / rates["peer"]
        if "blob" in parts:
            rates = _in_turn(servers, options, "10 MB blob GET, requests/s", f"bench/app/blobs/{small.layers[0]}")
            found["10 MB blob GET, ratio of throughput to the peer's"] = rates["ours"] / rates["peer"]
        if "push" in parts:
            found["push of a 400 MB image, ratio of time to the peer's"] = _pushes(servers, options, folder)
    found["memory, peak under that load"] = max(memory)
    if "many" in parts:
        found["manifest GET, ratio of median latency at 10,000 repositories to that at 10"] = _grow(
            ours, options, folder
        )
    return found


def _in_turn(servers: tuple[_Server, ...], options: argparse.Namespace, name: str, path: str) -> dict[str, float]:
    rates: dict[str, list[float]] = {server.name: [] for server in servers}
    for _ in range(options.rounds):
        for server in servers:
            rates[server.name].append(_wrk(server.target("bench/app"), [f"/v2/{path}"], options.seconds).rate)
    return _medians(name, rates)


def _pushes(servers: tuple[_Server, ...], options: argparse.Namespace, folder: Path) -> float:
    times: dict[str, list[float]] = {server.name: [] for server in servers}
    for number in range(options.rounds):
        image = Image.make(folder / "large", [_LAYER] * _LAYERS)
        for server in servers:
            os.sync()  # pending writes of one must not run in the other's time
            repository = f"bench/large{number}"
            times[server.name].append(image.push(server.target(repository), repository, "v1"))
        shutil.rmtree(folder / "large")
    medians = _medians("push of a 400 MB image, s", times)
    return medians["ours"] / medians["peer"]


def _grow(ours: _Ours, options: argparse.Namespace, folder: Path) -> float:
    """Return the ratio of read latencies with many and with few repositories. Reads are spread over all."""
    image = Image.make(folder / "tiny", [])
    latencies: list[float] = []
    made = 0
    for count in (_FEW, _MANY):
        names = [f"many/repository-{number}" for number in range(count)]
        image.push_many(lambda some: ours.target("many/repository-0", *some), names[made:])
        made = count
        read = names[:: max(count // _FEW, 1)]
        paths = [f"/v2/{name}/manifests/v1" for name in read]
        measured = [_wrk(ours.target(*read), paths, options.seconds) for _ in range(options.rounds)]
        latencies.append(statistics.median(one.median for one in measured))
        p99 = statistics.median(one.p99 for one in measured)
        print(f"  {count} repositories: manifest GET median {latencies[-1]:.2f} ms, p99 {p99:.2f} ms", flush=True)
    return latencies[1] / latencies[0]


def _medians(name: str, values: dict[str, list[float]]) -> dict[str, float]:
    medians = {server: statistics.median(several) for server, several in values.items()}
    shown = "; ".join(
        f"{server} {medians[server]:,.2f} ({min(v):,.2f} to {max(v):,.2f})" for server, v in values.items()
    )
    print(f"  {name}: {shown}", flush=True)
    return medians


_SCRIPT = """
local paths, number = {%s}, 0
request = function()
  number = number %% #paths + 1
  return wrk.format("GET", paths[number])
end
"""


def _wrk(target: Target, paths: list[str], seconds: int) -> _Wrk:
    """Read the paths in turn. Two threads, because one would be the bottleneck in decryption."""
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as script:
        script.write(_SCRIPT % ",".join(f'"{path}"' for path in paths))
        script.flush()
        command = ["wrk", "-t2", f"-c{_CONNECTIONS}", f"-d{seconds}s", "--latency"]
        for header in (*target.headers.items(), ("Accept", MANIFEST_TYPE)):
            command += ["-H", ": ".join(header)]
        if len(paths) > 1:
            command += ["-s", script.name]
        output = subprocess.run(
            [*command, f"{target.url}{paths[0]}"], capture_output=True, text=True, check=True
        ).stdout
    if "Non-2xx" in output or "Socket errors" in output:
        sys.exit(f"{target.url}{paths[0]} failed:\n{output}")
    return _Wrk(
        float(re.findall(r"Requests/sec:\s+([\d.]+)", output)[0]),
        _milliseconds(re.findall(r"50%\s+([\d.]+)(\w+)", output)[0]),
        _milliseconds(re.findall(r"99%\s+([\d.]+)(\w+)", output)[0]),
    )


def _milliseconds(measured: tuple[str, str]) -> float:
    return float(measured[0]) * {"us": 1e-3, "ms": 1.0, "s": 1e3}[measured[1]]


@contextlib.contextmanager
def _watch_memory(server: _Server) -> Iterator[list[float]]:
    """Yield a list that receives the server's memory ten times per second."""
    seen = [server.memory()]
    done = threading.Event()

    def watch() -> None:
        while not done.wait(0.1):
            seen.append(server.memory())

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield seen
    finally:
        done.set()
        watcher.join()


def _print(found: dict[str, float]) -> int:
    missed = 0
    for name, value in found.items():
        bound = _BOUNDS[name]
        holds = value >= bound.limit if bound.at_least else value <= bound.limit
        missed += not holds
        word = "at least" if bound.at_least else "at most"
        print(f"{name}: {value:,.2f} {bound.unit} ({word} {bound.limit:g}){'' if holds else '  MISSED'}")
    return missed


if __name__ == "__main__":
    main()
