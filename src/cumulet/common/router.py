"""The router of an installation: a network namespace between its pods, its Services and the machine.

The namespace has a bridge with a port for each pod, and one end of a link to the machine (the uplink). Everything between
pods, and between pods and all else, passes the namespace's ip hooks, where several rooms have a table each. Its settings are
its own: the machine's (sysctl.d(5), a firewall of another program) neither matter nor change.

    pod ADDRESS/32 ── bridge `pods` (GATEWAY) ── router ── `uplink` ══ link_name() (MACHINE) ── machine

GATEWAY is the first address of `pod_cidr`, MACHINE the second. What the machine sends to pods and Services has MACHINE as its
source. What listens for pods has a socket of this namespace (`open_socket`): a door.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import ipaddress
import json
import os
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

from cumulet.common import forwarding
from cumulet.common.config import Config
from cumulet.common.namespaces import NAMESPACES, exists, inside
from cumulet.common.nftables import AbsentError, Nftables, UnavailableError
from cumulet.common.private_files import private_folder

#: The ports of the doors at the gateway that every pod may use: the API server's and the name server's.
API_PORT, DNS_PORT = 6443, 53
#: The links in the namespace.
BRIDGE, UPLINK = "pods", "uplink"
#: Marks of packets of container groups that are no pods of a cluster, so that no network policy is for them. `ip groups` sets
#: them before the priority `filter`. A packet loses its marks where it enters the namespace.
GROUP_SENDS, GROUP_RECEIVES = 1 << 28, 1 << 29
#: The prefix of the names of all uplinks at the machine's end, of every installation.
LINK_PREFIX = "cu"
#: Azure's instance metadata service, whose address is the router's.
METADATA = ipaddress.IPv4Address("169.254.169.254")

#: The settings of the namespace (ip-sysctl in the kernel's documentation). Those of `default` are for links made later.
_SETTINGS = {
    "net/ipv6/conf/all/disable_ipv6": "1",
    "net/ipv6/conf/default/disable_ipv6": "1",
    # Pods reach each other through the gateway only, so that it can translate and refuse.
    "net/ipv4/conf/all/send_redirects": "0",
    "net/ipv4/conf/default/send_redirects": "0",
    "net/ipv4/conf/all/accept_redirects": "0",
    "net/ipv4/conf/default/accept_redirects": "0",
    "net/ipv4/conf/all/accept_source_route": "0",
    "net/ipv4/conf/default/accept_source_route": "0",
    # The uplink brings no packet with the address of a pod.
    "net/ipv4/conf/all/rp_filter": "1",
    "net/ipv4/conf/default/rp_filter": "1",
    "net/ipv4/ip_forward": "1",
    # Otherwise the bridge itself would translate addresses, and send between ports what the router has to route.
    "net/bridge/bridge-nf-call-iptables": "0",
    "net/bridge/bridge-nf-call-ip6tables": "0",
    "net/bridge/bridge-nf-call-arptables": "0",
}


class RouterError(Exception):
    """The namespace or one of its links cannot be made; the message has the program's reason."""


def installation_id(config: Config) -> str:
    """Return the id of an installation, which the names of all its objects in the kernel have: eight characters."""
    return hashlib.sha256(str(config.data_dir).encode()).hexdigest()[:8]


def namespace_name(config: Config) -> str:
    """Return the name of the namespace in `NAMESPACES`."""
    return f"cumulet-{installation_id(config)}"


def link_name(config: Config) -> str:
    """Return the name of the uplink's end in the machine's namespace."""
    return f"{LINK_PREFIX}{installation_id(config)}"


def table_name(config: Config) -> str:
    """Return the name of the `ip` table in the machine's namespace that guards the uplink."""
    return f"cumulet_{installation_id(config)}"


def clients_table_name(config: Config) -> str:
    """Return the name of the `ip` table in the machine's namespace that leads the machine's own clients to Services."""
    return f"{table_name(config)}_clients"


def gateway(config: Config) -> ipaddress.IPv4Address:
    """Return the router's address, which is that of the doors: the first address of `pod_cidr`."""
    return ipaddress.IPv4Network(config.pod_cidr).network_address + 1


def cluster_dns(config: Config) -> ipaddress.IPv4Address:
    """Return the cluster IP of the name server: the tenth address of `service_cidr`, as in AKS."""
    return ipaddress.IPv4Network(config.service_cidr).network_address + 10


def machine_address(config: Config) -> ipaddress.IPv4Address:
    """Return the source address of what the machine sends to pods and Services: the second address of `pod_cidr`."""
    return ipaddress.IPv4Network(config.pod_cidr).network_address + 2


def mac_address(address: ipaddress.IPv4Address) -> str:
    """Return the MAC address of a link's end: locally administered, with the IPv4 address, as in CNI's bridge."""
    return "0a:58:" + address.packed.hex(":")


def is_there(config: Config) -> bool:
    """Return whether the namespace exists and can be entered."""
    return exists(namespace_name(config))


def ensure(config: Config) -> None:
    """Make the namespace, its bridge, the uplink, routes and settings, or what is missing of them.

    It blocks for some 20 ms. It may be called at any time, also by several processes. The guard of the machine is there before
    the uplink. Raises `RouterError`, `NftablesError`.
    """
    with _locked(config):
        name, own, link = namespace_name(config), gateway(config), link_name(config)
        with Nftables() as nftables:
            nftables.run_now(guard_rules(config))
        if not exists(name):
            (NAMESPACES / name).unlink(missing_ok=True)  # a machine that lost its power, or a killed ip(8), left it
            _ip(f"netns add {name}")
        try:
            inside(name, _set)
        except OSError as error:
            raise RouterError(f"the settings of the network namespace {name}: {error}") from None
        links = _links(name)
        commands = [] if BRIDGE in links else [f"link add {BRIDGE} type bridge forward_delay 0"]
        commands += [
            "link set lo up",
            # Otherwise a bridge has the lowest address of its ports, which changes. Setting it again forgets all neighbours.
            *([] if links.get(BRIDGE) == mac_address(own) else [f"link set {BRIDGE} address {mac_address(own)}"]),
            f"link set {BRIDGE} addrgenmode none up",
            f"addr replace {own}/32 dev {BRIDGE}",
            f"addr replace {METADATA}/32 dev {BRIDGE}",
            f"route replace {config.pod_cidr} dev {BRIDGE} scope link src {own}",
        ]
        _ip("\n".join(commands), name)
        if UPLINK not in links or not Path(f"/sys/class/net/{link}").exists():
            _delete_link(link)
            _ip(f"link add {link} type veth peer name {UPLINK} netns {name}")
        machine = machine_address(config)
        _ip(
            f"link set {UPLINK} addrgenmode none up\n"
            f"route replace {machine}/32 dev {UPLINK} scope link src {own}\n"
            f"route replace default via {machine} dev {UPLINK} src {own}",
            name,
        )
        ranges = [config.pod_cidr, *(str(found) for found in routed_ranges(config))]
        _ip(
            f"link set {link} addrgenmode none up\naddr replace {machine}/32 dev {link}\n"
            + "\n".join(f"route replace {to} via {own} dev {link} onlink src {machine}" for to in ranges)
        )


def remove(config: Config) -> list[str]:
    """Delete the namespace, the uplink and the guard; return a line for each. Raises `RouterError`, `NftablesError`.

    The links and tables in the namespace end with it, as soon as no process and no socket of it is left.
    """
    removed = []
    with _locked(config):
        if _delete_link(link_name(config)):
            removed.append(f"link {link_name(config)}")
        path = NAMESPACES / namespace_name(config)
        if path.exists():
            _ip(f"netns delete {path.name}")
            removed.append(f"network namespace {path.name}")
        if restored := forwarding.restore(LINK_PREFIX):
            removed.append(restored)
        for table in (table_name(config), clients_table_name(config)):
            try:
                with Nftables() as nftables:
                    nftables.run_now(f"delete table ip {table}")
                removed.append(f"table ip {table}")
            except AbsentError:
                pass
            except UnavailableError:
                if removed:  # otherwise nothing was made without the library, or by this user
                    raise
    return removed


def open_socket(
    namespace: str | None, family: socket.AddressFamily, kind: socket.SocketKind, protocol: int = 0
) -> socket.socket:
    """Return a socket of a namespace, or of this one with `None`. Raises `OSError`.

    It stays a socket of that namespace, in whichever process it is used.
    """
    return inside(namespace, lambda: socket.socket(family, kind, protocol))


def routed_ranges(config: Config) -> list[ipaddress.IPv4Network]:
    """Return the ranges of Services that the machine can send to the router: those that overlap none of its own routes.

    A loopback range has no route, as the kernel keeps 127.0.0.0/8 to itself. Raises `RouterError`.
    """
    taken = other_routes(config)
    ranges = [ipaddress.IPv4Network(text) for text in (config.service_cidr, config.external_cidr)]
    return [one for one in ranges if not one.is_loopback and not any(one.overlaps(to) for to, _ in taken)]


def other_routes(config: Config) -> list[tuple[ipaddress.IPv4Network, str]]:
    """Return the destinations of the machine's routes that are not this installation's, and their links, without default routes.

    Raises `RouterError`.
    """
    return [
        (ipaddress.IPv4Network(route["dst"]), route.get("dev", ""))
        for route in json.loads(_ip("-4 -json route show", batch=False))
        if route["dst"] != "default" and route.get("dev") != link_name(config)
    ]


def guard_rules(config: Config) -> str:
    """Return the script that makes or replaces the machine's table for the uplink.

    Pods reply to the machine and open no connection to it. What they send elsewhere leaves with the machine's address, if the
    machine forwards. No other network, and no other installation's pods, reach the pods through the machine. A connection that
    was accepted stays accepted.
    """
    table, link = f"ip {table_name(config)}", f'"{link_name(config)}"'
    return f"""
add table {table}
delete table {table}
table {table} {{
  chain arriving {{
    type filter hook prerouting priority raw; policy accept;
    iifname {link} ip saddr != {{ {config.pod_cidr}, {config.service_cidr}, {config.external_cidr} }} drop
  }}
  chain entering {{
    type filter hook input priority filter - 10; policy accept;
    iifname != {link} accept
    ct state {{ established, related }} accept
    drop
  }}
  chain passing {{
    type filter hook forward priority filter - 10; policy accept;
    oifname {link} ct state {{ established, related }} accept
    oifname {link} drop
    iifname {link} oifname "{LINK_PREFIX}*" drop comment "another installation's pods"
  }}
  chain leaving {{
    type nat hook postrouting priority srcnat; policy accept;
    ip saddr {config.pod_cidr} ip saddr != {machine_address(config)} oifname != {link} masquerade
  }}
}}
"""


def _set() -> None:
    """Write the settings of this thread's namespace."""
    for name, value in _SETTINGS.items():
        path = Path("/proc/sys") / name
        if name.startswith(("net/ipv6", "net/bridge")) and not path.exists():
            continue  # a kernel without IPv6, or without rules of ip(8) for bridges (br_netfilter)
        if path.read_text().strip() != value:
            path.write_text(value)


def _links(namespace: str) -> dict[str, str]:
    """Return the links of a namespace with their MAC addresses."""
    listed = json.loads(_ip("-json link show", namespace, batch=False))
    return {link["ifname"]: link.get("address", "") for link in listed}


def _delete_link(link: str) -> bool:
    """Delete a link of the machine, if there is one; return whether there was."""
    path = Path(f"/sys/class/net/{link}")
    if not path.exists():
        return False
    try:
        _ip(f"link delete {link}")
    except RouterError:
        if path.exists():
            raise
        # It went with the namespace of its other end, which the kernel takes down some time after its name.
    return True


def _ip(commands: str, namespace: str | None = None, *, batch: bool = True) -> bytes:
    """Run commands of ip(8), one a line, in a namespace or in this one. Raises `RouterError`."""
    where = ["-n", namespace] if namespace else []
    words = ["-batch", "-"] if batch else commands.split()
    given = commands.encode() if batch else b""
    done = subprocess.run(["ip", *where, *words], input=given, capture_output=True, check=False)
    if done.returncode:
        raise RouterError(f"ip: {done.stderr.decode(errors='replace').strip()}")
    return done.stdout


@contextlib.contextmanager
def _locked(config: Config) -> Iterator[None]:
    """Exclude other processes, which would make the same links."""
    path = private_folder(config.data_dir / "run") / "router.lock"
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600), "wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
