"""The doors: listeners in the router's namespace, which is all of this installation that pods and groups can reach.

They reach none of the machine's addresses. The API server is at the gateway's address, for everybody. Workloads with a managed
identity or a federated token get tokens and use Azure Resource Manager there; no other workload reaches those doors. The metadata
service has the address that it has in Azure. The name server answers everybody.
"""

from __future__ import annotations

import contextlib
import ipaddress
import socket

from cumulet.common import router
from cumulet.common.config import Address, Config, RoomName

#: The ports of the doors at the gateway for workloads with an identity, which are the default ports of the rooms.
PORTS: dict[RoomName, int] = {"identity": 8444, "arm": 8443}
#: Azure's instance metadata service.
METADATA = Address(str(router.METADATA), 80)
#: ip(7); Python has no name for it.
_IP_FREEBIND = 15


def door(config: Config, room: RoomName) -> Address:
    """Return the address of a room's door."""
    return Address(str(router.gateway(config)), PORTS[room])


def api_server(config: Config) -> Address:
    """Return the address of the API server's door, the endpoint of the Service `default/kubernetes`."""
    return Address(str(router.gateway(config)), router.API_PORT)


def of(config: Config, room: RoomName) -> Address | None:
    """Return the address of the door that a room has, `None` for a room without one."""
    match room:
        case "kube":
            return api_server(config)
        case "instances":
            return METADATA
        case "identity" | "arm":
            return door(config, room)
    return None


def listen(config: Config, address: Address) -> list[socket.socket]:
    """Return a listening socket at an address of the router, none without a router, as where there is no root.

    The address need not be there yet. Raises `OSError`.
    """
    return [_bound(config, address, socket.SOCK_STREAM)] if router.is_there(config) else []


def name_server(config: Config) -> list[socket.socket]:
    """Return a UDP socket and a listening TCP socket for names, none without a router. Raises `OSError`."""
    if not router.is_there(config):
        return []
    address = Address(str(router.gateway(config)), router.DNS_PORT)
    datagrams = _bound(config, address, socket.SOCK_DGRAM)
    try:
        return [datagrams, _bound(config, address, socket.SOCK_STREAM)]
    except OSError:
        datagrams.close()
        raise


def _bound(config: Config, address: Address, kind: socket.SocketKind) -> socket.socket:
    """Return a socket at an address of the router, which listens if it is a stream's. Raises `OSError`."""
    with contextlib.ExitStack() as stack:
        opened = router.open_socket(router.namespace_name(config), socket.AF_INET, kind)
        stack.callback(opened.close)
        opened.setsockopt(socket.SOL_IP, _IP_FREEBIND, 1)
        if kind == socket.SOCK_STREAM:
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        opened.bind((str(ipaddress.IPv4Address(address.host)), address.port))
        if kind == socket.SOCK_STREAM:
            opened.listen(1024)
        opened.setblocking(False)
        stack.pop_all()
        return opened
