"""The API server alone, against its bounds and the figures of a kube-apiserver 1.36 with etcd: `make bench-kube`.

The clients run in this process and share the machine with the server. Everything goes over TLS; every create is
durable before it is answered.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import ssl
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import uvloop

from cumulet.common import tls
from cumulet.common.config import DEFAULT_PORTS, Config
from cumulet.up.install import install
from cumulet.up.lifecycle import resident_bytes

_ROOM = """
import sys
from pathlib import Path
from cumulet.common.config import load
from cumulet.common.room import run
from cumulet.kube.room import serve
run("kube", load(Path(sys.argv[1])), serve)
"""
_CONNECTIONS = 16
_PODS = "/api/v1/namespaces/bench/pods"


class Bound(NamedTuple):
    """What is asked of a figure, and what the peer had."""

    limit: float
    at_least: bool
    unit: str
    peer: str = ""


_BOUNDS = {
    "ready from a cold start": Bound(1.0, False, "s", "2.9 s"),
    "memory, fresh": Bound(120, False, "MB", "331 MB"),
    "pod creates": Bound(1200, True, "/s", "811/s"),
    "pod GETs": Bound(5500, True, "/s", "1,852/s"),
    "list of 4,083 pods": Bound(0.25, False, "s", "0.51 s"),
    "memory with 5,000 pods": Bound(250, False, "MB", "650 MB with 4,083"),
    "1,000 watchers, 100 changes/s, p99": Bound(0.1, False, "s"),
    "create p99 at 10,000 pods to that of an empty store": Bound(2.0, False, "x"),
}


def main() -> None:
    """Measure and print; ends with 1 where a bound is missed and `--check` is given."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="fail where a bound is missed")
    check = parser.parse_args().check
    with tempfile.TemporaryDirectory(prefix="cumulet-bench-") as name:
        config = install(Path(name) / "data", ports=dict.fromkeys(DEFAULT_PORTS, 0))
        with _server(config) as process, asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            missed = runner.run(_measure(config, process))
    raise SystemExit(1 if check and missed else 0)


@contextlib.contextmanager
def _server(config: Config) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen([sys.executable, "-c", _ROOM, str(config.data_dir)])
    try:
        yield process
    finally:
        process.terminate()
        process.wait()


async def _measure(config: Config, process: subprocess.Popen[bytes]) -> int:
    began = time.perf_counter()
    client = _Client(config)
    found: dict[str, float] = {}
    while True:
        try:
            async with client.connection() as connection:
                await connection.call("GET", "/readyz")
                break
        except OSError:
            await asyncio.sleep(0.01)
    found["ready from a cold start"] = time.perf_counter() - began
    found["memory, fresh"] = (resident_bytes(process.pid) or 0) / 1e6
    async with client.connection() as connection:
        await connection.call("POST", "/api/v1/namespaces", {"metadata": {"name": "bench"}})
        await connection.call("POST", "/api/v1/namespaces/bench/serviceaccounts", {"metadata": {"name": "default"}})

    created = 0

    async def create(connection: _Connection) -> None:
        nonlocal created
        created += 1
        await connection.call("POST", _PODS, _pod(created))

    first, _ = await client.many(200, create)
    times, seconds = await client.many(4083 - 200, create)
    found["pod creates"] = len(times) / seconds
    lists = []
    async with client.connection() as connection:
        for _ in range(5):
            start = time.perf_counter()
            await connection.call("GET", _PODS)
            lists.append(time.perf_counter() - start)
    found["list of 4,083 pods"] = statistics.median(lists)

    async def get(connection: _Connection) -> None:
        await connection.call("GET", f"{_PODS}/pod-{1 + created // 2}")

    times, seconds = await client.many(20_000, get)
    found["pod GETs"] = len(times) / seconds
    await client.many(5000 - created, create)
    found["memory with 5,000 pods"] = (resident_bytes(process.pid) or 0) / 1e6
    found["1,000 watchers, 100 changes/s, p99"] = await _watchers(client, 1000, 100, 5)
    await client.many(10_000 - created, create)
    last, _ = await client.many(400, create)
    found["create p99 at 10,000 pods to that of an empty store"] = _p99(last) / _p99(first)
    return _print(found)


def _print(found: dict[str, float]) -> int:
    missed = 0
    for name, bound in _BOUNDS.items():
        value = found[name]
        holds = value >= bound.limit if bound.at_least else value <= bound.limit
        missed += not holds
        word = "at least" if bound.at_least else "at most"
        peer = f"; peer {bound.peer}" if bound.peer else ""
        verdict = "" if holds else "  MISSED"
        print(f"{name}: {value:,.2f} {bound.unit} ({word} {bound.limit:g}{peer}){verdict}")
    return missed


def _p99(times: list[float]) -> float:
    return statistics.quantiles(times, n=100)[98]


def _pod(number: int) -> dict[str, Any]:
    container = {
        "name": "web",
        "image": "acrdemo2ss.azurecr.io/app3/acr-app3:v1",
        "ports": [{"containerPort": 80}],
        "resources": {"requests": {"cpu": "100m", "memory": "64Mi"}},
    }
    metadata = {"name": f"pod-{number}", "labels": {"app": "web", "number": str(number)}}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": {"containers": [container]}}


class _Connection:
    """One keep-alive connection; one request at a time."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    def send(self, method: str, path: str, body: Any = None) -> None:
        """Write a request."""
        data = b"" if body is None else json.dumps(body).encode()
        head = f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(data)}\r\n"
        kind = "application/merge-patch+json" if method == "PATCH" else "application/json"
        self.writer.write(f"{head}Content-Type: {kind}\r\n\r\n".encode() + data)

    async def call(self, method: str, path: str, body: Any = None) -> bytes:
        """The body of the answer. Raises `OSError` where it is none of success."""
        self.send(method, path, body)
        head = await self.reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
        answer = await self.reader.readexactly(length)
        if not head.startswith(b"HTTP/1.1 2"):
            raise OSError(answer.decode())
        return answer


class _Client:
    def __init__(self, config: Config) -> None:
        self._address = config.addresses["kube"]
        certificate, key = (config.ca_file.with_name(f"admin.{kind}") for kind in ("crt", "key"))
        self._tls: ssl.SSLContext = tls.client_context(config.ca_file, certificate, key)

    @contextlib.asynccontextmanager
    async def connection(self) -> AsyncIterator[_Connection]:
        """A connection, closed at the end."""
        address = self._address
        reader, writer = await asyncio.open_connection(address.host, address.port, ssl=self._tls, limit=2**22)
        try:
            yield _Connection(reader, writer)
        finally:
            writer.transport.abort()

    async def many(self, count: int, work: Callable[[_Connection], Awaitable[None]]) -> tuple[list[float], float]:
        """Do work so many times over sixteen connections: the time of each, and of all."""
        left = count
        times: list[float] = []

        async def one() -> None:
            nonlocal left
            async with self.connection() as connection:
                while left > 0:
                    left -= 1
                    start = time.perf_counter()
                    await work(connection)
                    times.append(time.perf_counter() - start)

        began = time.perf_counter()
        await asyncio.gather(*(one() for _ in range(_CONNECTIONS)))
        return times, time.perf_counter() - began


async def _watchers(client: _Client, watchers: int, rate: int, seconds: int) -> float:
    """The 99th percentile of the time from a change to each watcher's seeing it."""
    sent: dict[str, float] = {}
    delays: list[float] = []
    async with client.connection() as connection:
        head = json.loads(await connection.call("GET", f"{_PODS}?limit=1"))
    version = head["metadata"]["resourceVersion"]
    ready = asyncio.Semaphore(0)

    async def watch() -> None:
        async with client.connection() as connection:
            connection.send("GET", f"{_PODS}?watch=true&resourceVersion={version}")
            await connection.reader.readuntil(b"\r\n\r\n")
            ready.release()
            while True:
                line = await connection.reader.readuntil(b"}\n")
                now = time.perf_counter()
                mark = line.split(b'"mark":"')[1].split(b'"')[0].decode()
                delays.append(now - sent[mark])

    async with contextlib.AsyncExitStack() as stack:
        tasks = []
        for number in range(watchers):
            tasks.append(asyncio.create_task(watch()))
            if number % 20 == 19:
                for _ in range(20):
                    await ready.acquire()
        writer = await stack.enter_async_context(client.connection())
        began = time.perf_counter()
        for number in range(rate * seconds):
            await asyncio.sleep(max(0.0, began + number / rate - time.perf_counter()))
            sent[str(number)] = time.perf_counter()
            patch = {"metadata": {"annotations": {"mark": str(number)}}}
            await writer.call("PATCH", f"{_PODS}/pod-{1 + number}", patch)
        await asyncio.sleep(0.5)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    print(f"  {len(delays):,} of {watchers * rate * seconds:,} events delivered")
    return _p99(delays)


if __name__ == "__main__":
    main()
