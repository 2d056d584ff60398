"""A group's namespace and its link to the router, made by system calls and netlink: a start needs no process for them.

`ip -n` copies the mounts of the machine for each command, which takes longer the more containers there are.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import ipaddress
import os
import socket
import struct
from collections.abc import Iterator
from pathlib import Path

from cumulet.common import router
from cumulet.common.namespaces import NAMESPACES, inside
from cumulet.common.netlink import CREATE, EXCLUSIVE, REPLACE, Netlink, attribute, nested, number, text
from cumulet.instances.sandbox import syscalls

#: The name of a group's end of its link, as in Kubernetes and ACI.
OWN_END = "eth0"

_CLONE_NEWNET, _MS_BIND, _MNT_DETACH = 0x40000000, 0x1000, 2
_LIBC = ctypes.CDLL(None, use_errno=True)

# rtnetlink(7), if_link.h and rtnetlink.h of Linux.
_NEW_LINK, _DELETE_LINK, _NEW_ADDRESS, _NEW_ROUTE = 16, 17, 20, 24
_UP = 1
_LOOPBACK = 1
_LINK_MESSAGE, _ADDRESS_MESSAGE = struct.Struct("=BxHiII"), struct.Struct("=BBBBI")
_ROUTE_MESSAGE = struct.Struct("=BBBBBBBBI")
_MAC, _NAME, _MASTER, _KIND, _OF_FAMILY, _IN_NAMESPACE = 1, 3, 10, 18, 26, 28
_KIND_NAME, _KIND_DATA, _PORT_NAME, _PORT_DATA = 1, 2, 4, 5
_PEER, _ISOLATED, _ADDRESSES_BY, _BY_NOBODY = 1, 33, 8, b"\1"
_OWN, _LOCAL, _GATEWAY, _LINK = 1, 2, 5, 4
_MAIN, _STATIC, _UNICAST, _ON_LINK = 254, 4, 1, 4
#: What a port does not do: learn, and get frames for unknown addresses, groups and everybody.
_LEARNING_AND_FLOODS = (8, 9, 27, 30)
_NEW_NEIGHBOUR, _DELETE_NEIGHBOUR, _NEIGHBOUR_MESSAGE = 28, 29, struct.Struct("=BxxxiHBB")
_NEIGHBOUR_ADDRESS, _NEIGHBOUR_MAC = 1, 2
_PERMANENT, _NO_ARP, _OF_BRIDGE = 0x80, 0x40, 4
#: `AF_BRIDGE`.
_BRIDGES = 7
#: `SIOCGIFADDR`.
_GET_ADDRESS = 0x8915


def make_namespace(name: str, pid: int = 0) -> Path:
    """Name the network namespace of a process, or a new one without a process; return its file. Raises `OSError`."""
    path = NAMESPACES / name
    os.close(os.open(path, os.O_RDONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0))
    if pid:
        _bind(f"/proc/{pid}/ns/net", path)
    else:
        inside(Path("/proc/self/ns/net"), lambda: _bind_new(path))
    return path


def delete_namespace(name: str) -> bool:
    """Remove the name of a namespace, which ends with its last process; return whether there was one. Raises `OSError`."""
    path = NAMESPACES / name
    try:
        syscalls.unmount(os.fsencode(path), _MNT_DETACH)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOENT):  # it is not mounted
            raise
    existed = path.exists()
    path.unlink(missing_ok=True)
    return existed


def plug(space: str, bridge: str, port: str, namespace: Path, address: ipaddress.IPv4Address) -> None:
    """Make a link between a namespace and a bridge of the router, which is the namespace `space`. Raises `OSError`.

    Isolated ports of a bridge do not reach each other, even without rules. The bridge learns nothing from them: it knows the
    one MAC address of each port, and sends a port no frame for another. IPv6 has no address, so it does not leave.
    """
    mac = _mac(address)
    descriptor = os.open(namespace, os.O_RDONLY | os.O_CLOEXEC)

    def make() -> None:
        peer = (
            _LINK_MESSAGE.pack(0, 0, 0, 0, 0)
            + text(_NAME, OWN_END)
            + attribute(_MAC, mac)
            + number(_IN_NAMESPACE, descriptor)
        )
        kind = nested(_KIND, text(_KIND_NAME, "veth"), nested(_KIND_DATA, attribute(_PEER, peer)))
        flags = [attribute(_ISOLATED, b"\1"), *(attribute(kind, b"\0") for kind in _LEARNING_AND_FLOODS)]
        isolated = nested(_KIND, text(_PORT_NAME, "bridge"), nested(_PORT_DATA, *flags))
        own = socket.if_nametoindex(bridge)
        name, master = text(_NAME, port), number(_MASTER, own)
        with Netlink() as kernel:
            down = _LINK_MESSAGE.pack(0, 0, 0, 0, _UP)
            kernel.call(_NEW_LINK, down + name + master + kind, CREATE | EXCLUSIVE)
            kernel.call(_NEW_LINK, _LINK_MESSAGE.pack(0, 0, 0, 0, 0) + name + isolated)
            index = socket.if_nametoindex(port)
            _refuse_ipv6(kernel, index)
            at_port = _NEIGHBOUR_MESSAGE.pack(_BRIDGES, index, _NO_ARP, _OF_BRIDGE, 0)
            kernel.call(_NEW_NEIGHBOUR, at_port + attribute(_NEIGHBOUR_MAC, mac), CREATE | REPLACE)
            _add_neighbour(kernel, own, address)
            kernel.call(_NEW_LINK, _LINK_MESSAGE.pack(0, 0, 0, _UP, _UP) + name)

    try:
        inside(space, make)
    finally:
        os.close(descriptor)


def unplug(space: str, bridge: str, port: str, address: ipaddress.IPv4Address) -> None:
    """Delete a link by its port at the router, and what the router knows of its address, if they exist. Raises `OSError`."""

    def delete() -> None:
        with Netlink() as kernel:
            with _absence():
                kernel.call(_DELETE_LINK, _LINK_MESSAGE.pack(0, 0, 0, 0, 0) + text(_NAME, port))
            of_bridge = _NEIGHBOUR_MESSAGE.pack(socket.AF_INET, socket.if_nametoindex(bridge), 0, 0, 0)
            kernel.call(_DELETE_NEIGHBOUR, of_bridge + attribute(_NEIGHBOUR_ADDRESS, address.packed))

    with _absence():
        inside(space, delete)


def configure(namespace: Path, address: ipaddress.IPv4Address, gateway: ipaddress.IPv4Address) -> None:
    """Give a namespace its address, and a route to everything through the gateway. Raises `OSError`."""

    def make() -> None:
        link = socket.if_nametoindex(OWN_END)
        with Netlink() as kernel:
            _refuse_ipv6(kernel, link)
            for index in (_LOOPBACK, link):
                kernel.call(_NEW_LINK, _LINK_MESSAGE.pack(0, 0, index, _UP, _UP))
            own = attribute(_LOCAL, address.packed) + attribute(_OWN, address.packed)
            kernel.call(_NEW_ADDRESS, _ADDRESS_MESSAGE.pack(socket.AF_INET, 32, 0, 0, link) + own, CREATE | EXCLUSIVE)
            route = _ROUTE_MESSAGE.pack(socket.AF_INET, 0, 0, 0, _MAIN, _STATIC, 0, _UNICAST, _ON_LINK)
            through = attribute(_GATEWAY, gateway.packed) + number(_LINK, link)
            kernel.call(_NEW_ROUTE, route + through, CREATE | EXCLUSIVE)
            _add_neighbour(kernel, link, gateway)

    inside(namespace, make)


def is_plugged(space: str, port: str, namespace: Path, address: ipaddress.IPv4Address) -> bool:
    """Return whether a namespace has its address, and the router the port of its link."""

    def own_address() -> bytes:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
            asked = struct.pack("16s16x", OWN_END.encode())
            return fcntl.ioctl(asking, _GET_ADDRESS, asked)[20:24]

    try:
        inside(space, lambda: socket.if_nametoindex(port))
        return inside(namespace, own_address) == address.packed
    except OSError:
        return False


def _add_neighbour(kernel: Netlink, link: int, address: ipaddress.IPv4Address) -> None:
    """Tell a link the MAC address of an address for good: nobody is asked, and the kernel's limit of neighbours does not count."""
    message = _NEIGHBOUR_MESSAGE.pack(socket.AF_INET, link, _PERMANENT, 0, 0)
    known = attribute(_NEIGHBOUR_ADDRESS, address.packed) + attribute(_NEIGHBOUR_MAC, _mac(address))
    kernel.call(_NEW_NEIGHBOUR, message + known, CREATE | REPLACE)


def _mac(address: ipaddress.IPv4Address) -> bytes:
    return bytes.fromhex(router.mac_address(address).replace(":", ""))


@contextlib.contextmanager
def _absence() -> Iterator[None]:
    """Pass over that a link, an entry or the router does not exist."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENODEV, errno.ENOENT):
            raise


def _refuse_ipv6(kernel: Netlink, link: int) -> None:
    """Make no IPv6 address for a link when it is set up; a kernel without IPv6 makes none anyway."""
    nobody = nested(_OF_FAMILY, nested(socket.AF_INET6, attribute(_ADDRESSES_BY, _BY_NOBODY)))
    try:
        kernel.call(_NEW_LINK, _LINK_MESSAGE.pack(0, 0, link, 0, 0) + nobody)
    except OSError as error:
        if error.errno != errno.EAFNOSUPPORT:
            raise


def _bind_new(path: Path) -> None:
    """Name a new network namespace of this thread."""
    if _LIBC.unshare(_CLONE_NEWNET):
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    _bind("/proc/thread-self/ns/net", path)


def _bind(source: str, path: Path) -> None:
    syscalls.mount(source.encode(), os.fsencode(path), b"none", _MS_BIND, b"")
