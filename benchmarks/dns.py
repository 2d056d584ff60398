"""Measures the name server on one processor, with dnsperf on the other.

The server is the room's, over objects in memory: Services, headless Services, and their slices. Bound: 10,000 queries in
a second of a processor, which does not depend on what else the machine does, once each question has been asked before.
"""

from __future__ import annotations

import argparse
import asyncio
import ipaddress
import os
import random
import re
import resource
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

import uvloop

from cumulet.common.config import DEFAULT_PORTS, Config
from cumulet.common.kubernetes import Client
from cumulet.common.kubernetes.kubeconfig import load_kubeconfig
from cumulet.common.tasks import task_set
from cumulet.network.cluster import Cluster
from cumulet.network.dns.machine import HostsFile
from cumulet.network.dns.nameserver import Addresses, Elsewhere, Sockets, name_server
from cumulet.up.install import install

_BOUND = 10_000
_HOST = "127.0.0.1"
_ZONE = "svc.cluster.local"


def _fill(cluster: Cluster, services: int) -> None:
    """Add Services, each tenth of them headless with ten endpoints."""
    cluster.namespaces.items["", "default"] = {"metadata": {"name": "default"}}
    for number in range(services):
        name, headless = f"service-{number}", number % 10 == 0
        address = "None" if headless else f"10.0.{number // 250}.{number % 250 + 1}"
        metadata = {"name": name, "namespace": "default"}
        cluster.services.items["default", name] = {
            "metadata": {"name": name, "namespace": "default"},
            "spec": {"clusterIP": address, "ports": [{"name": "http", "port": 80, "protocol": "TCP"}]},
        }
        cluster.slices.items["default", name] = {
            "metadata": {
                "name": metadata["name"],
                "namespace": "default",
                "labels": {"kubernetes.io/service-name": name},
            },
            "addressType": "IPv4",
            "endpoints": [{"addresses": [f"10.{number % 250}.{number // 250}.{end}"]} for end in range(1, 11)],
            "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
        }


async def _serve(config: Config, services: int, told: int) -> None:
    """Serve until the process is stopped."""
    client = Client(load_kubeconfig(config.kubeconfig_file("network")), user_agent="benchmark")
    async with task_set() as tasks:
        cluster = Cluster.watched_by(client, config, tasks)
        _fill(cluster, services)
        addresses = Addresses(
            _HOST, ipaddress.IPv4Network("127.0.0.0/8"), (_HOST,), ipaddress.IPv4Network(config.service_cidr)
        )
        elsewhere = Elsewhere(HostsFile(), list, list)
        datagrams = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        datagrams.bind((_HOST, 0))
        async with name_server(cluster, addresses, elsewhere, Sockets([datagrams], [])):
            os.write(told, f"{datagrams.getsockname()[1]}\n".encode())
            await asyncio.Event().wait()


def _questions(services: int, names: int) -> str:
    """Return what dnsperf asks: as the C library with `ndots:5` does, most names are tried in several domains."""
    asked = []
    for _ in range(names):
        name = f"service-{random.randrange(services)}"
        for kind in ("A", "AAAA"):
            asked.append(f"{name}.default.{_ZONE} {kind}")
            asked.append(f"absent-{random.randrange(services)}.default.{_ZONE} {kind}")
        asked.append(f"_http._tcp.{name}.default.{_ZONE} SRV")
    return "\n".join(asked) + "\n"


class _Measured(NamedTuple):
    """Answers, answers a second, and the share in % of questions without one."""

    answers: int
    rate: float
    lost: float


def _measure(port: int, questions: Path, extent: list[str]) -> _Measured:
    """Ask on the other processor."""
    command = [
        "dnsperf",
        "-s",
        _HOST,
        "-p",
        str(port),
        "-d",
        str(questions),
        *extent,
        "-c",
        "8",
        "-q",
        "200",
    ]
    cpu = max(os.sched_getaffinity(0))
    output = subprocess.run(["taskset", "-c", str(cpu), *command], capture_output=True, text=True, check=True).stdout
    found = [
        re.search(pattern, output)
        for pattern in (r"completed:\s+(\d+)", r"per second:\s+([\d.]+)", r"lost:\s+\d+ \(([\d.]+)%\)")
    ]
    answers, rate, lost = [float(match[1]) if match is not None else 0.0 for match in found]
    return _Measured(int(answers), rate, lost)


def _processor_time(process: int) -> float:
    """Return the seconds of a processor that a process has taken."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def main() -> None:
    """Print the figures; the exit code is 1 if the bound is missed."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--services", type=int, default=5000)
    parser.add_argument("--names", type=int, default=1000)
    parser.add_argument("--seconds", type=int, default=5)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        config = install(Path(folder) / "data", ports=dict.fromkeys(DEFAULT_PORTS, 0))
        ready, told = os.pipe()
        server = os.fork()
        if server == 0:
            os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
            uvloop.run(_serve(config, given.services, told))
        with open(ready) as file:  # noqa: PTH123
            port = int(file.readline())
        try:
            questions = Path(folder) / "questions"
            questions.write_text(_questions(given.services, given.names))
            # Each question once, and then again and again.
            for what, extent in (("first", ["-n", "1"]), ("then", ["-l", str(given.seconds)])):
                before = _processor_time(server)
                measured = _measure(port, questions, extent)
                rate = measured.answers / (_processor_time(server) - before)
                print(
                    f"{given.services} Services, {given.names} names, {what}: {measured.rate:,.0f} queries/s, "
                    f"{measured.lost:.2f} % lost; {rate:,.0f} in a second of a processor (bound {_BOUND:,})"
                )
        finally:
            os.kill(server, 15)
            os.waitpid(server, 0)
        used = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
        print(f"memory of the largest process: {used / 1024:.0f} MiB")
    sys.exit(rate < _BOUND)


if __name__ == "__main__":
    main()
