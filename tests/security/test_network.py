"""Container groups at one router: who reaches whom, and who cannot pretend to be another."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import json
import os
import select
import socket
import subprocess
import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from cumulet.common import forwarding, nftables, router
from cumulet.common.config import DEFAULT_PORTS, Config
from cumulet.common.namespaces import NAMESPACES, inside
from cumulet.common.nftables import Nftables, NftablesError
from cumulet.common.table_watch import TableWatch
from cumulet.instances.cleanup import cleanup
from cumulet.instances.sandbox import names
from cumulet.up.install import install
from cumulet.up.preflight import problems
from tests.cloud import Cloud
from tests.installation import free_pod_cidr
from tests.instances.door import FrontDoor, RoomProcess, front_door, group, is_over, is_running, running_room, shell
from tests.instances.images import busybox_layer, peer_registry
from tests.security.frames import BROADCAST, Host, arp, made_in, neighbour, other, packets, received_before, udp

_SERVE = "mkdir /w; echo hello > /w/index.html; trap 'exit 0' TERM; httpd -f -p 80 -h /w & wait"
Group = dict[str, Any]
#: A range for documentation (RFC 5737).
OUTSIDE = ipaddress.ip_network("198.51.100.0/30")


@pytest.fixture(scope="module")
def room(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RoomProcess]:
    """A running room, and a registry with an image that has a shell."""
    assert os.geteuid() == 0, "these tests run containers: they need root"
    folder = tmp_path_factory.mktemp("network")
    config = install(folder / "data", ports=dict.fromkeys(DEFAULT_PORTS, 0), pod_cidr=free_pod_cidr())
    with peer_registry(config, folder / "registry") as peer:
        peer.push("box:v1", [busybox_layer()])
        with running_room(config) as running:
            yield running


@pytest.fixture
async def door(room: RoomProcess) -> AsyncIterator[FrontDoor]:
    """The front door of the room."""
    async with front_door(room.config) as client:
        yield client


def network(name: str, subnet: str = "default") -> list[dict[str, str]]:
    """The subnets of a group in a virtual network of that name."""
    resource_group = f"/subscriptions/{uuid.UUID(int=1)}/resourceGroups/nets"
    return [{"id": f"{resource_group}/providers/Microsoft.Network/virtualNetworks/{name}/subnets/{subnet}"}]


async def serving(door: FrontDoor, **properties: Any) -> Group:
    """A new group that serves a page."""
    name = f"s{uuid.uuid4().hex[:10]}"
    await door.call("PUT", name, group(shell(_SERVE, image="box:v1"), **properties))
    made = await door.until(name, is_running)
    assert await door.get_page(made) == b"hello\n"
    return made


def address(made: Group) -> str:
    found: str = made["properties"]["ipAddress"]["ip"]
    return found


async def outcome(door: FrontDoor, script: str, **properties: Any) -> int:
    """The exit code of a script in a group of its own, whose container has raw sockets: busybox's `ping` needs one."""
    name = f"c{uuid.uuid4().hex[:10]}"
    raw = {"capabilities": {"add": ["NET_RAW"]}}
    box = shell(script, image="box:v1", securityContext=raw)
    await door.call("PUT", name, group(box, restartPolicy="Never", **properties))
    ended = await door.until(name, is_over)
    container = ended["properties"]["containers"][0]["properties"]["instanceView"]
    await door.call("DELETE", name)
    code: int = container["currentState"]["exitCode"]
    return code


#: The tables that keep groups apart and out of the machine: of the router, and of the machine (`None`).
TABLES = [("bridge groups", True), ("ip groups", True), ("ip cumulet_{}", False)]


def nft(config: Config, command: str, table: str, *, in_router: bool) -> subprocess.CompletedProcess[str]:
    """A command of another program on a table."""
    where = ["ip", "netns", "exec", router.namespace_name(config)] if in_router else []
    words = [*where, "nft", command, "table", *table.format(router.installation_id(config)).split()]
    return subprocess.run(words, capture_output=True, text=True, check=False)


def listed_rules(config: Config) -> str:
    """The rules between groups."""
    listed = [nft(config, "list", table, in_router=True).stdout for table in ("bridge groups", "ip groups")]
    return "".join(listed).replace(",", " ")


def addresses_of_the_machine() -> list[str]:
    """Its addresses of all links, also of other installations' ones."""
    listed = subprocess.run(["ip", "-4", "-json", "addr"], capture_output=True, check=True).stdout
    return [item["local"] for link in json.loads(listed) for item in link["addr_info"]]


def fetch(host: str, port: int = 80) -> str:
    """A script that ends well only where a page can be had."""
    return f"printf 'GET / HTTP/1.0\\r\\n\\r\\n' | nc -w 2 {host} {port} | grep hello"


# Who reaches whom.


async def test_groups_without_a_subnet_reach_no_other_group(door: FrontDoor) -> None:
    target = await serving(door)
    assert await outcome(door, fetch(address(target))) != 0
    assert await outcome(door, f"ping -c 1 -W 2 {address(target)}") != 0
    # Their own containers and the machine do.
    assert await outcome(door, f"({_SERVE}) & until {fetch('127.0.0.1')}; do :; done") == 0
    assert await door.get_page(target) == b"hello\n"


async def test_groups_of_one_virtual_network_reach_each_other_and_no_other_network(door: FrontDoor) -> None:
    target = await serving(door, subnetIds=network("inner"))
    page = fetch(address(target))
    assert await outcome(door, page, subnetIds=network("inner")) == 0
    # Ids are compared without case, and subnets of a virtual network are routed to each other.
    assert await outcome(door, page, subnetIds=network("INNER", "another")) == 0
    assert await outcome(door, page, subnetIds=network("inner2")) != 0
    assert await outcome(door, page) != 0


async def test_a_network_lives_through_a_kill_of_the_room_and_stays_closed(
    door: FrontDoor, room: RoomProcess
) -> None:
    target = await serving(door, subnetIds=network("kept"))
    room.stop(kill=True)
    room.start()
    assert await outcome(door, fetch(address(target)), subnetIds=network("kept")) == 0
    assert await outcome(door, fetch(address(target))) != 0


@pytest.mark.parametrize(("table", "in_router"), TABLES)
async def test_rules_that_somebody_flushed_are_there_again(
    door: FrontDoor, room: RoomProcess, table: str, in_router: bool
) -> None:
    config = room.config
    target = await serving(door, subnetIds=network("flushed"))
    name = table.format(router.installation_id(config)).split()[1]
    space = router.namespace_name(config) if in_router else None
    with contextlib.closing(inside(space, lambda: TableWatch(name))) as watch:
        # As `systemctl reload nftables` does.
        assert nft(config, "delete", table, in_router=in_router).returncode == 0
        # It goes and comes.
        while nft(config, "list", table, in_router=in_router).returncode:
            select.select([watch], [], [], 20)
            watch.take()
    assert await outcome(door, fetch(address(target)), subnetIds=network("other")) != 0
    assert await outcome(door, fetch(address(target)), subnetIds=network("flushed")) == 0


async def test_what_the_machine_listens_on_is_not_for_groups(door: FrontDoor, room: RoomProcess) -> None:
    gateway, machine = router.gateway(room.config), router.machine_address(room.config)
    own = addresses_of_the_machine()
    assert str(machine) in own
    with socket.create_server(("0.0.0.0", 0)) as tcp, socket.socket(type=socket.SOCK_DGRAM) as datagrams:
        tcp.setblocking(False)
        datagrams.bind(("0.0.0.0", 0))
        port, datagram_port = tcp.getsockname()[1], datagrams.getsockname()[1]
        # The gateway answers to ping; the machine does not, at any of its addresses.
        assert await outcome(door, f"ping -c 1 -W 2 {gateway}") == 0
        assert await outcome(door, f"ping -c 1 -W 2 {machine}") != 0
        tries = [
            f"(nc -w 1 {host} {port} < /dev/null; echo hello | nc -u -w 1 {host} {datagram_port}) &"
            for host in (*own, gateway)
        ]
        assert await outcome(door, " ".join([*tries, "wait; true"])) == 0
        datagrams.setblocking(False)
        with pytest.raises(BlockingIOError):
            datagrams.recv(100)
        with pytest.raises(BlockingIOError):
            tcp.accept()


async def test_a_door_is_for_the_groups_that_are_admitted(door: FrontDoor, room: RoomProcess) -> None:
    config = room.config
    made = [await serving(door) for _ in range(2)]
    gateway = router.gateway(config)
    with router.open_socket(router.namespace_name(config), socket.AF_INET, socket.SOCK_STREAM) as server:
        server.bind((str(gateway), 0))
        server.listen()
        port = server.getsockname()[1]

        def connects(group: Group) -> bool:
            space, _ = namespace_of(config, address(group))
            with made_in(space, lambda: socket.socket()) as client:
                client.settimeout(1)
                try:
                    client.connect((str(gateway), port))
                except TimeoutError:
                    return False
                return True

        assert [connects(group) for group in made] == [False, False]
        guest = f"{address(made[0])} . {gateway} . {port}"
        with Nftables(router.namespace_name(config)) as rules:
            await rules.run(f"add element ip groups guests {{ {guest} }}")
            assert [connects(group) for group in made] == [True, False]
            await rules.run(f"delete element ip groups guests {{ {guest} }}")


async def test_the_machine_gets_the_answers_to_its_datagrams_and_no_others(
    door: FrontDoor, room: RoomProcess
) -> None:
    made = await serving(door)
    namespace, own = namespace_of(room.config, address(made))
    with (
        socket.socket(type=socket.SOCK_DGRAM) as asking,
        made_in(namespace, lambda: socket.socket(type=socket.SOCK_DGRAM)) as answering,
        made_in(namespace, lambda: socket.socket(type=socket.SOCK_DGRAM)) as meddling,
    ):
        answering.bind((own.address, 53))
        asking.settimeout(20)
        asking.sendto(b"question", (own.address, 53))
        question, whence = answering.recvfrom(100)
        assert question == b"question"
        meddling.sendto(b"unasked", whence)
        answering.sendto(b"answer", whence)
        assert asking.recv(100) == b"answer"


# What is outside the installation.


@pytest.fixture
def outside() -> Iterator[str]:
    """A network beyond this machine, with a host that has no route to pods; the name of its namespace."""
    name = f"cumulet-outside-{os.getpid()}"
    link = f"co{os.getpid()}"
    commands = (
        f"ip netns add {name}",
        f"ip link add {link} type veth peer name eth0 netns {name}",
        f"ip addr add {OUTSIDE[1]}/30 dev {link}",
        f"ip link set {link} up",
        f"ip -n {name} addr add {OUTSIDE[2]}/30 dev eth0",
        f"ip -n {name} addr add 169.254.7.7/32 dev eth0",
        f"ip -n {name} link set eth0 up",
        f"ip route add 169.254.7.7/32 via {OUTSIDE[2]}",
    )
    for command in commands:
        subprocess.run(command.split(), check=True)
    try:
        yield name
    finally:
        subprocess.run(["ip", "netns", "delete", name], check=True)
        subprocess.run(["ip", "link", "delete", link], check=False, capture_output=True)


async def test_a_group_reaches_what_the_machine_reaches_with_its_address(
    door: FrontDoor, room: RoomProcess, outside: str
) -> None:
    made = await serving(door)
    forwarding.enable(router.LINK_PREFIX)
    own_space, _ = namespace_of(room.config, address(made))
    with made_in(NAMESPACES / outside, socket.socket) as server:
        server.bind(("0.0.0.0", 0))
        server.listen()
        port = server.getsockname()[1]
        with made_in(own_space, socket.socket) as client:
            client.connect((str(OUTSIDE[2]), port))
            accepted, peer = server.accept()
            accepted.close()
            assert peer[0] == str(OUTSIDE[1])
        # No cloud's metadata service, and nobody comes back in.
        with made_in(own_space, socket.socket) as client:
            client.settimeout(1)
            with pytest.raises(TimeoutError):
                client.connect(("169.254.7.7", port))
        route = ["ip", "-n", outside, "route", "add", room.config.pod_cidr, "via", str(OUTSIDE[1])]
        assert await asyncio.to_thread(subprocess.call, route) == 0
        with made_in(NAMESPACES / outside, socket.socket) as stranger:
            stranger.settimeout(1)
            with pytest.raises(TimeoutError):
                stranger.connect((address(made), 80))


# Who pretends to be another.


def namespace_of(config: Config, wanted: str) -> tuple[Path, Host]:
    """The namespace of the group with an address, and who it is."""
    for path in NAMESPACES.glob(names.group_namespace(config, "*")):
        shown = subprocess.run(["ip", "-n", path.name, "-j", "addr", "show", "eth0"], capture_output=True, check=True)
        link = json.loads(shown.stdout)[0]
        if any(item["local"] == wanted for item in link["addr_info"]):
            return path, Host(bytes.fromhex(link["address"].replace(":", "")), wanted)
    raise AssertionError(f"nobody has {wanted}")


def gateway_of(config: Config) -> Host:
    """The router, as groups see it."""
    address = router.gateway(config)
    return Host(bytes.fromhex(router.mac_address(address).replace(":", "")), str(address))


async def test_a_group_cannot_pretend_to_be_another(door: FrontDoor, room: RoomProcess) -> None:
    config = room.config
    made = [await serving(door, subnetIds=network("spoof")) for _ in range(3)]
    (own_space, own), (peer_space, peer), (_, third) = [namespace_of(config, address(item)) for item in made]
    gateway = gateway_of(config)
    through = Host(gateway.mac, peer.address)
    last, forged = uuid.uuid4().bytes, uuid.uuid4().bytes
    everybody = Host(BROADCAST, peer.address)
    with (
        packets("eth0", own_space) as sender,
        packets("eth0", peer_space) as peers,
        packets(router.BRIDGE, NAMESPACES / router.namespace_name(config)) as routed,
    ):
        for target, receiver in ((peer, peers), (through, peers), (gateway, routed)):
            for frame in (
                udp(Host(own.mac, third.address), target, forged),
                udp(Host(third.mac, own.address), target, forged),
                udp(Host(third.mac, third.address), target, forged),
                udp(Host(own.mac, "0.0.0.0"), target, forged),
                udp(Host(own.mac, gateway.address), target, forged),
                udp(Host(own.mac, str(router.machine_address(config))), target, forged),
                udp(own, Host(BROADCAST, target.address), forged),
                arp(Host(own.mac, third.address), target, frame_from=own.mac) + forged,
                arp(Host(own.mac, gateway.address), target, frame_from=own.mac) + forged,
                arp(Host(own.mac, gateway.address), everybody, frame_from=own.mac) + forged,
                arp(third, target, frame_from=own.mac) + forged,
                arp(Host(third.mac, own.address), target, frame_from=own.mac) + forged,
                arp(Host(own.mac, own.address), target, frame_from=third.mac) + forged,
                neighbour(own, forged),
                other(own, target, 0x8100, b"\x00\x01\x08\x00" + udp(own, target, forged)[14:]),
                other(own, target, 0x88CC, forged),
                other(own, Host(b"\x01\x80\xc2\x00\x00\x0e", target.address), 0x88CC, forged),
                udp(own, through if receiver is peers else gateway, last),
            ):
                sender.send(frame)
            seen = received_before(receiver, last)
            assert not [frame for frame in seen if forged in frame]


async def test_nothing_goes_from_port_to_port_and_no_options_go_anywhere(door: FrontDoor, room: RoomProcess) -> None:
    config = room.config
    made = [await serving(door, subnetIds=network("switched")) for _ in range(2)]
    (own_space, own), (peer_space, peer) = [namespace_of(config, address(item)) for item in made]
    through = Host(gateway_of(config).mac, peer.address)
    last, lost = uuid.uuid4().bytes, uuid.uuid4().bytes
    with packets("eth0", own_space) as sender, packets("eth0", peer_space) as receiver:
        for frame in (
            udp(own, peer, lost),
            udp(own, Host(BROADCAST, peer.address), lost),
            # A record of the route (RFC 791), and a loose route of the sender's choice.
            udp(own, through, lost, options=b"\x07\x07\x04\0\0\0\0\0"),
            udp(own, through, lost, options=b"\x83\x07\x04" + peer.packed + b"\0"),
            udp(own, through, last),
        ):
            sender.send(frame)
        assert not [frame for frame in received_before(receiver, last) if lost in frame]


async def test_nobody_overhears_what_is_for_another(door: FrontDoor, room: RoomProcess) -> None:
    config = room.config
    made = [await serving(door, subnetIds=network("heard")) for _ in range(2)]
    nobody = str(ipaddress.ip_network(config.pod_cidr)[-2])
    (peer_space, peer), (_, other_one) = [namespace_of(config, address(item)) for item in made]
    last = uuid.uuid4().bytes
    with packets("eth0", peer_space) as receiver, socket.socket(type=socket.SOCK_DGRAM) as machine:
        for target in (other_one.address, nobody, peer.address):
            machine.sendto(last if target == peer.address else b"secret", (target, 9))
        # Nor does the router ask everybody who has an address.
        assert {frame[:6] for frame in received_before(receiver, last)} <= {peer.mac}


async def test_the_router_does_not_carry_from_one_network_to_another(door: FrontDoor, room: RoomProcess) -> None:
    config = room.config
    made = [await serving(door, subnetIds=network(name)) for name in ("left", "right")]
    (own_space, own), (other_space, target) = [namespace_of(config, address(item)) for item in made]
    last, carried = uuid.uuid4().bytes, uuid.uuid4().bytes
    with packets("eth0", own_space) as sender, packets("eth0", other_space) as receiver:
        sender.send(udp(own, Host(gateway_of(config).mac, target.address), carried))
        # The machine itself may: what comes of this comes after.
        with socket.socket(type=socket.SOCK_DGRAM) as machine:
            machine.sendto(last, (target.address, 9))
        assert not [frame for frame in received_before(receiver, last) if carried in frame]


# What is in a request, and what is left behind.


@pytest.mark.parametrize(
    "wanted",
    [
        "default",
        "/subscriptions/x/resourceGroups/g/providers/Microsoft.Network/virtualNetworks/v/subnets/s",
        network("a")[0]["id"] + "/..",
        network('a" } add rule')[0]["id"],
        network("v\n")[0]["id"],
        network("ſ")[0]["id"],
        network("a")[0]["id"].replace("virtualNetworks", "virtualNetworkſ"),
    ],
)
async def test_what_is_not_a_subnet_is_refused(door: FrontDoor, wanted: str) -> None:
    body = group(shell(_SERVE, image="box:v1"), subnetIds=[{"id": wanted}])
    answer = await door.call("PUT", "refused", body, status=400)
    assert answer["error"]["target"] == "properties.subnetIds[0].id"


async def test_a_group_is_in_one_subnet_and_stays_there(door: FrontDoor) -> None:
    body = group(shell(_SERVE, image="box:v1"), subnetIds=network("a") + network("b"))
    assert (await door.call("PUT", "two", body, status=400))["error"]["target"] == "properties.subnetIds"
    made = await serving(door, subnetIds=network("stays"))
    assert made["properties"]["subnetIds"] == network("stays")
    moved = group(shell(_SERVE, image="box:v1"), subnetIds=network("elsewhere"))
    answer = await door.call("PUT", made["name"], moved, status=400)
    assert answer["error"]["code"] == "InvalidContainerGroupUpdate"


async def test_an_address_has_no_rule_when_its_group_has_gone(door: FrontDoor, room: RoomProcess) -> None:
    made = await serving(door, subnetIds=network("gone"))
    mark = f" {address(made)} "
    assert mark in listed_rules(room.config)
    await door.call("DELETE", made["name"])
    assert mark not in listed_rules(room.config)
    # Of one that ended by itself nothing is left either, though it is still shown with its address.
    name = f"e{uuid.uuid4().hex[:10]}"
    body = group(shell("true", image="box:v1"), restartPolicy="Never", subnetIds=network("gone"))
    await door.call("PUT", name, body)
    ended = await door.until(name, is_over)
    # The sandbox is removed after the end is shown. Each look is a process; the time of the test is the limit.
    while f" {address(ended)} " in listed_rules(room.config):
        continue


def test_nothing_is_left_in_the_kernel(tmp_path: Path) -> None:
    config = install(tmp_path / "data", ports=dict.fromkeys(DEFAULT_PORTS, 0), pod_cidr=free_pod_cidr())

    def found() -> list[str]:
        """What the machine lists of this installation."""
        commands = ("nft list tables", "ip netns list", "ip -4 route", "ip -brief link")
        listed = [subprocess.run(command.split(), capture_output=True, text=True, check=True) for command in commands]
        words = (router.installation_id(config), config.pod_cidr)
        return [line for done in listed for line in done.stdout.splitlines() if any(word in line for word in words)]

    with running_room(config):
        assert len(found()) >= 4
    assert found() == []


def test_what_an_earlier_version_left_is_removed(config: Config) -> None:
    name = router.installation_id(config)
    for command in (f"ip link add cb{name} type bridge", f"nft add table bridge cumulet_{name}"):
        subprocess.run(command.split(), check=True)
    assert cleanup(config) == [f"link cb{name}", f"table bridge cumulet_{name}"]
    assert cleanup(config) == []


def test_without_nftables_no_group_is_run(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    config = msgspec.structs.replace(config, pod_cidr=free_pod_cidr())
    assert problems(config) == []
    with monkeypatch.context() as changed:
        changed.setattr(nftables, "LIBRARY", "libnftables.so.99")
        nftables._library.cache_clear()
        (missing,) = problems(config)
        assert "libnftables.so.99" in missing.what
        assert missing.fix.endswith(" libnftables1")
    nftables._library.cache_clear()

    # One that is there and cannot do it.
    def cannot(rules: Nftables, script: str) -> None:
        raise NftablesError("Operation not supported")

    monkeypatch.setattr(Nftables, "check_now", cannot)
    (unable,) = problems(config)
    assert "cannot be isolated" in unable.what
    assert "Operation not supported" in unable.what


def test_every_address_has_a_link_of_its_own_whose_name_the_kernel_takes(config: Config) -> None:
    largest = msgspec.structs.replace(config, pod_cidr="0.0.0.0/0")
    first, last = ipaddress.IPv4Address("0.0.0.2"), ipaddress.IPv4Address("255.255.255.254")
    found = {names.port_name(largest, address) for address in (first, first + 1, last - 1, last)}
    assert len(found) == 4
    assert max(map(len, found)) <= 15
    smallest = msgspec.structs.replace(config, pod_cidr=free_pod_cidr().replace("/16", "/30"))
    assert any("has no address for a container group" in problem.what for problem in problems(smallest))


def test_who_may_not_join_a_subnet_cannot_put_a_group_in_it(tmp_path: Path) -> None:
    cloud = Cloud(tmp_path / "data", "arm")
    try:
        scopes = [f"{cloud.subscription}/resourceGroups/{name}" for name in ("own", "theirs")]
        for scope in scopes:
            assert cloud.arm("PUT", scope, {"location": "eastus"}).status == 201
        who = cloud.principal("joins", Contributor=scopes[0])
        subnet = "providers/Microsoft.Network/virtualNetworks/v/subnets/s"
        for scope, status, code in (
            (scopes[1], 403, "LinkedAuthorizationFailed"),
            ("", 403, "LinkedAuthorizationFailed"),
            (scopes[0], 503, None),  # allowed, but the room does not run
        ):
            body = {"location": "eastus", "properties": {"subnetIds": [{"id": f"{scope}/{subnet}"}]}}
            path = f"{scopes[0]}/providers/Microsoft.ContainerInstance/containerGroups/g"
            answer = cloud.arm("PUT", path, body, as_=who)
            assert answer.status == status, answer.body
            assert code is None or answer.code == code
    finally:
        cloud.close()
