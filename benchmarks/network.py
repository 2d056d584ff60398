"""Measures Services in the kernel: `make bench-network`. wrk(1) is the client.

Two network namespaces stand in for pods: a server and a client. The API server, the balancer and the network are real.

- Requests and bytes a second through an EXTERNAL-IP, each as a ratio to those straight to the pod, in turn and in one run.
  Bound: 0.95 (the median of the ratios). `--seconds 60` shows that they stay.
- With many Services of 10 endpoints each: the time from the request that makes an endpoint ready until a client, which is
  refused before, is answered. Bound: 100 ms (median). It includes the API server.
- The memory of the room, at most.
"""

from __future__ import annotations

import argparse
import asyncio
import re
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import uvloop

from cumulet.common import router
from cumulet.common.kubernetes import Client, load_kubeconfig
from cumulet.common.kubernetes.client import ENDPOINTSLICES, SERVICES
from cumulet.common.namespaces import inside
from tests.cloud import Cloud
from tests.network.pods import Pod
from tests.network.services import ranges

_RATIO, _DELAY = 0.95, 0.1
_PORT, _LARGE = 8080, 1 << 20
_FAR = 10
_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}


class _Pages(asyncio.Protocol):
    """A server of two pages: `/` is small, `/large` has 1 MiB."""

    _small = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"
    _large = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (_LARGE, bytes(_LARGE))

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is not a subclass

    def data_received(self, data: bytes) -> None:
        self._transport.write(self._large if data.startswith(b"GET /large") else self._small)


async def _serve(address: str) -> None:
    server = await asyncio.get_running_loop().create_server(_Pages, address, _PORT, backlog=1024)
    print("ready", flush=True)
    await server.serve_forever()


@contextmanager
def _server(pod: Pod) -> Iterator[None]:
    command = [
        "ip",
        "netns",
        "exec",
        pod.namespace,
        sys.executable,
        "-m",
        "benchmarks.network",
        "--serve",
        pod.address,
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        try:
            yield
        finally:
            process.terminate()


def _wrk(client: Pod, url: str, seconds: float, figure: str) -> float:
    command = ["ip", "netns", "exec", client.namespace, "wrk", "-t1", "-c32", f"-d{seconds:g}s", url]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    found = re.search(rf"{figure}/sec: +([0-9.]+)([KMG]?)", output)
    assert found is not None, output
    return float(found[1]) * _UNITS[found[2]]


def _ratios(client: Pod, pod: str, external: str, seconds: float, turns: int) -> bool:
    """Print the ratios, and return whether they hold."""
    held = True
    for what, path, figure in (("requests", "/", "Requests"), ("bytes", "/large", "Transfer")):
        ratios = []
        for turn in range(turns):
            addresses = [f"{pod}:{_PORT}", f"{external}:80"]
            order = addresses if turn % 2 == 0 else addresses[::-1]
            measured = {address: _wrk(client, f"http://{address}{path}", seconds, figure) for address in order}
            straight, through = (measured[address] for address in addresses)
            ratios.append(through / straight)
            print(f"{what}: {straight:,.0f}/s straight, {through:,.0f}/s through the EXTERNAL-IP: {ratios[-1]:.3f}")
        median = statistics.median(ratios)
        print(f"{what}: {median:.3f} (bound {_RATIO})")
        held = held and median >= _RATIO
    return held


def _service(name: str, **spec: object) -> Any:
    return {"metadata": {"name": name, "namespace": "default"}, "spec": {"ports": [{"port": 80}], **spec}}


def _slice(name: str, *addresses: str) -> Any:
    return {
        "metadata": {"name": name, "namespace": "default", "labels": {"kubernetes.io/service-name": name}},
        "addressType": "IPv4",
        "endpoints": [{"addresses": [address]} for address in addresses],
        "ports": [{"port": _PORT}],
    }


async def _fill(client: Client, cloud: Cloud, services: int) -> None:
    """Make Services with endpoints that nobody is."""
    base = cloud.config.pod_cidr.rpartition(".0.0/")[0]
    numbers = iter(range(services))

    async def work() -> None:
        for number in numbers:
            far = [
                f"{base}.{1 + (number * _FAR + end) // 250 % 250}.{(number * _FAR + end) % 250}"
                for end in range(_FAR)
            ]
            await client.create(SERVICES, _service(f"far-{number}"))
            await client.create(ENDPOINTSLICES, _slice(f"far-{number}", *far))

    await asyncio.gather(*(work() for _ in range(32)))


async def _delay(client: Client, caller: Pod, pod: Pod, name: str) -> float:
    """Return the seconds until a client of a new Service is answered, once its endpoint is ready."""
    made = await client.create(SERVICES, _service(name))
    address = made["spec"]["clusterIP"]
    await client.create(ENDPOINTSLICES, _slice(name))
    await asyncio.to_thread(_until, lambda: _answer(caller, address) is False)
    waiting = asyncio.create_task(asyncio.to_thread(_until, lambda: _answer(caller, address) is True))
    await asyncio.sleep(0.1)  # it asks all the time
    began = time.perf_counter()
    await client.patch(ENDPOINTSLICES, name, {"endpoints": [{"addresses": [pod.address]}]}, "default")
    await waiting
    return time.perf_counter() - began


def _until(holds: Callable[[], bool]) -> None:
    while not holds():
        continue


def _answer(caller: Pod, address: str) -> bool | None:
    """Return whether a connection is accepted or refused; `None` for silence."""
    with inside(caller.namespace, lambda: socket.socket(socket.AF_INET, socket.SOCK_STREAM)) as client:
        client.settimeout(0.2)
        try:
            client.connect((address, 80))
        except ConnectionRefusedError:
            return False
        except TimeoutError:
            return None
        return True


async def _measure(cloud: Cloud, server: Pod, caller: Pod, given: argparse.Namespace) -> bool:
    async with Client(load_kubeconfig(cloud.config.kubeconfig_file()), user_agent="benchmark") as client:
        await client.create(SERVICES, _service("page", type="LoadBalancer"))
        await client.create(ENDPOINTSLICES, _slice("page", server.address))
        while not (
            ingress := (await client.get(SERVICES, "page", "default"))["status"]["loadBalancer"].get("ingress")
        ):
            continue
        external = ingress[0]["ip"]
        await asyncio.to_thread(_until, lambda: _answer(caller, external) is True)
        held = await asyncio.to_thread(_ratios, caller, server.address, external, given.seconds, given.turns)
        memory = cloud.peak_memory("network")
        began = time.perf_counter()
        await _fill(client, cloud, given.services)
        print(f"{given.services:,} Services with {_FAR} endpoints made in {time.perf_counter() - began:.0f} s")
        took = [await _delay(client, caller, server, f"new-{turn}") for turn in range(15)]
        median = statistics.median(took)
        print(
            f"an endpoint is ready: a client is answered after {median * 1000:.0f} ms, at most {max(took) * 1000:.0f} ms"
            f" (bound {_DELAY * 1000:.0f} ms)"
        )
        print(f"memory of the room: {memory >> 20} MiB before, {cloud.peak_memory('network') >> 20} MiB at most")
        await asyncio.to_thread(cloud.kill, "network")
        await asyncio.to_thread(_until, lambda: _answer(caller, external) is True)
        print(f"memory after a kill and a start: {cloud.peak_memory('network') >> 20} MiB at most")
        return held and median <= _DELAY


def main() -> None:
    """Print the figures; the exit code is 1 if a bound is missed."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--services", type=int, default=5_000)
    parser.add_argument("--seconds", type=float, default=10.0, help="of each run of wrk")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.serve:
        uvloop.run(_serve(given.serve))
        return
    with tempfile.TemporaryDirectory() as folder:
        cloud = Cloud(Path(folder) / "data", "kube", "network", "balancer", **ranges())
        pods: list[Pod] = []
        try:
            router.ensure(cloud.config)
            for number, name in ((10, "server"), (11, "client")):
                pods.append(Pod(cloud.config, name, number))
            with _server(pods[0]):
                held = asyncio.run(_measure(cloud, pods[0], pods[1], given))
        finally:
            for pod in pods:
                pod.close()
            cloud.close()
            router.remove(cloud.config)
    sys.exit(not held)


if __name__ == "__main__":
    main()
