"""What a pod reaches of this installation and of the machine: the doors, and nothing else."""

from __future__ import annotations

import ipaddress
import json
import selectors
import socket
import subprocess
import time

from cumulet.common import doors, router
from cumulet.common.config import DEFAULT_PORTS, load
from cumulet.common.namespaces import NAMESPACES, inside
from tests.cases.path import ThePath, pod

#: Seconds in which what is open has long answered.
_PATIENCE = 2.0
Target = tuple[str, int]


def reached(namespace: str, targets: list[Target]) -> set[Target]:
    """The targets that a connection from a namespace is accepted by; all are tried at once."""
    found: set[Target] = set()
    with selectors.DefaultSelector() as waiting:
        for target in targets:
            made = inside(namespace, lambda: socket.socket(socket.AF_INET, socket.SOCK_STREAM))
            made.setblocking(False)
            made.connect_ex(target)
            waiting.register(made, selectors.EVENT_WRITE, target)
        until = time.monotonic() + _PATIENCE
        while (left := until - time.monotonic()) > 0 and waiting.get_map():
            for key, _ in waiting.select(left):
                assert isinstance(key.fileobj, socket.socket)
                if key.fileobj.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0:
                    found.add(key.data)
                waiting.unregister(key.fileobj)
                key.fileobj.close()
        for key in list(waiting.get_map().values()):
            assert isinstance(key.fileobj, socket.socket)
            key.fileobj.close()
    return found


def own_addresses(namespace: str | None) -> set[str]:
    """The addresses of a namespace, or of the machine."""
    where = ["-n", namespace] if namespace else []
    listed = subprocess.run(["ip", *where, "-4", "-json", "addr"], capture_output=True, check=True).stdout
    return {item["local"] for link in json.loads(listed) for item in link["addr_info"]}


def test_a_pod_reaches_the_doors_and_no_room(path: ThePath) -> None:
    config = load(path.installation.data_dir)
    path.apply(pod("lonely", [{"name": "main", "command": ["sleep", "600"]}]))
    path.wait_phase("lonely", "Running")
    address = path.get("lonely")["status"]["podIP"]
    (namespace,) = [
        item.name
        for item in NAMESPACES.glob(f"{router.namespace_name(config)}-*")
        if address in own_addresses(item.name)
    ]
    hosts = own_addresses(None) | own_addresses(router.namespace_name(config))
    hosts |= {address.host for room in config.rooms for address in config.listening(room)}
    hosts -= {host for host in hosts if ipaddress.ip_address(host).is_loopback}  # those are the pod's own
    rooms = {address.port for room in config.rooms for address in config.listening(room)}
    ports = rooms | set(DEFAULT_PORTS.values()) | {22, 53, 80, 443, router.API_PORT}
    # The machine reaches its rooms, so what is closed is the way.
    for room in config.rooms:
        socket.create_connection((config.addresses[room].host, config.addresses[room].port)).close()
    gateway, metadata = str(router.gateway(config)), doors.METADATA
    found = reached(namespace, [(host, port) for host in sorted(hosts) for port in sorted(ports)])
    assert found == {
        (gateway, router.API_PORT),
        (gateway, router.DNS_PORT),
        (metadata.host, metadata.port),
    }
    path.kubectl("delete", "pod", "lonely", "--grace-period=0", "--force")
