"""What a pod cannot do to the policies that isolate it, and to those that isolate others, with frames that it makes itself.

The router is a real one, with the rules of container groups. `hostile` may send datagrams to `friend` at port 80, and nothing
else; `victim` takes connections of `friend` only.
"""

from __future__ import annotations

import ipaddress
import socket
import struct
from collections.abc import Iterator
from typing import NamedTuple

import msgspec
import pytest

from cumulet.common import router
from cumulet.common.namespaces import inside
from cumulet.instances.model.properties import GroupProperties
from cumulet.instances.sandbox.firewall import member_of
from tests.network.lab import OUTSIDE, Lab, lab
from tests.network.packets import PROTOCOLS, Probe, body_of, checksum, packet, written
from tests.network.policies import Cluster, Object, compiled, pod, policy

_MARK = b"attack"
_IPV4, _VLAN, _IPV6 = 0x0800, 0x8100, 0x86DD
_MORE_FRAGMENTS = 0x2000
_SO_MARK = 36


class Pods(NamedTuple):
    hostile: str
    friend: str
    victim: str
    #: One that the cluster does not know yet.
    new: str


@pytest.fixture(scope="module")
def net(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with lab(tmp_path_factory.mktemp("lab")) as made:
        made.guard()
        yield made


@pytest.fixture
def pods(net: Lab) -> Pods:
    found = Pods(*net.pods)
    load(net, isolated(found))
    return found


def isolated(found: Pods) -> Cluster:
    egress = [
        {"to": [{"podSelector": {"matchLabels": {"app": "friend"}}}], "ports": [{"port": 80, "protocol": "UDP"}]}
    ]
    ingress = [{"from": [{"podSelector": {"matchLabels": {"app": "friend"}}}]}]
    policies = [
        policy("a", "out", {"matchLabels": {"app": "hostile"}}, policyTypes=["Ingress", "Egress"], egress=egress),
        policy("a", "in", {"matchLabels": {"app": "victim"}}, ingress=ingress),
    ]
    named: dict[str, str] = found._asdict()
    return Cluster({"a": {}}, [pod("a", name, named[name], {"app": name}) for name in Pods._fields[:3]], policies)


def load(net: Lab, cluster: Cluster) -> None:
    net.rules.run_now(compiled(cluster, net.places).ruleset.script())


def frame(net: Lab, pods: Pods, content: bytes, kind: int = _IPV4, to: str = "", source: str = "") -> bytes:
    """A frame of the hostile pod, to the gateway unless `to` names another; `source` pretends to be another's port."""
    macs = [mac(to or net.gateway), mac(source or pods.hostile)]
    return b"".join(macs) + kind.to_bytes(2) + content


def mac(address: str) -> bytes:
    return bytes.fromhex(router.mac_address(ipaddress.IPv4Address(address)).replace(":", ""))


def datagram(source: str, target: str, port: int = 80, source_port: int = 40001, more: bytes = b"") -> bytes:
    """A datagram without a checksum, as IPv4 allows."""
    content = _MARK + more
    return struct.pack("!HHHH", source_port, port, 8 + len(content), 0) + content


def sent(net: Lab, source: str, *frames: bytes) -> None:
    for item in frames:
        net.tap(source).send(item)


def reached(net: Lab, address: str) -> bool:
    """Whether a pod received anything of an attack."""
    return any(_MARK in item.body for item in net.received(address))


def test_what_is_allowed_arrives(net: Lab, pods: Pods) -> None:
    body = datagram(pods.hostile, pods.friend)
    sent(net, pods.hostile, frame(net, pods, packet(pods.hostile, pods.friend, PROTOCOLS["udp"], body)))
    assert reached(net, pods.friend)


def test_no_plain_packet_reaches_the_victim_nor_anything_else(net: Lab, pods: Pods) -> None:
    targets = (pods.victim, pods.new, net.gateway, net.machine, OUTSIDE)
    kinds = [("udp", 53), ("udp", 80), ("tcp", 53), ("tcp", 80), ("tcp", 6443), ("sctp", 80), ("icmp", 0)]
    probes = [
        Probe(pods.hostile, target, protocol, port, 100 * place + number, 50000 + 100 * place + number)
        for place, target in enumerate(targets, 1)
        for number, (protocol, port) in enumerate(kinds)
    ]
    assert net.arrived(probes) == set()
    # Nor from the ports that replies come from.
    replies = [
        Probe(pods.hostile, pods.victim, protocol, 40000, number, port)
        for number, (protocol, port) in enumerate(kinds[:-1], 1000)
    ]
    assert net.arrived(replies) == set()


def test_no_other_protocol_leaves(net: Lab, pods: Pods) -> None:
    for protocol in (0, 2, 4, 33, 41, 47, 50, 51, 89, 112, 136, 255):
        content = packet(pods.hostile, pods.victim, protocol, _MARK * 8)
        sent(net, pods.hostile, frame(net, pods, content))
    assert not reached(net, pods.victim)


def test_no_address_of_another_is_believed(net: Lab, pods: Pods) -> None:
    for claimed in (pods.friend, pods.victim, pods.new, net.machine, net.gateway, OUTSIDE, "127.0.0.1", "0.0.0.0"):
        content = packet(claimed, pods.victim, PROTOCOLS["udp"], datagram(claimed, pods.victim))
        sent(net, pods.hostile, frame(net, pods, content))
        if claimed in (pods.friend, net.gateway):
            sent(net, pods.hostile, frame(net, pods, content, source=claimed))
    assert not reached(net, pods.victim)


def test_no_frame_goes_past_the_router(net: Lab, pods: Pods) -> None:
    for target in (pods.victim, "224.0.0.1", "255.255.255.255", str(net.places.pods.broadcast_address)):
        content = packet(pods.hostile, target, PROTOCOLS["udp"], datagram(pods.hostile, target))
        everybody = b"\xff" * 6 + mac(pods.hostile) + _IPV4.to_bytes(2) + content
        group = b"\x01\x00\x5e\x00\x00\x01" + mac(pods.hostile) + _IPV4.to_bytes(2) + content
        tagged = frame(net, pods, b"\0\1" + _IPV4.to_bytes(2) + content, _VLAN, to=pods.victim)
        sent(net, pods.hostile, frame(net, pods, content, to=pods.victim), everybody, group, tagged)
        sent(net, pods.hostile, frame(net, pods, b"\x60" + b"\0" * 39 + content, _IPV6, to=pods.victim))
    assert not reached(net, pods.victim)


def test_nobody_is_led_to_believe_that_an_address_is_here(net: Lab, pods: Pods) -> None:
    for claimed in (pods.friend, pods.victim, net.gateway):
        head = struct.pack("!HHBBH", 1, _IPV4, 6, 4, 2)
        addresses = [ipaddress.IPv4Address(address).packed for address in (claimed, net.gateway)]
        answer = head + mac(pods.hostile) + addresses[0] + mac(net.gateway) + addresses[1]
        for to in (net.gateway, pods.victim):
            sent(net, pods.hostile, frame(net, pods, answer, 0x0806, to=to))
    answered = Probe(pods.friend, pods.victim, "udp", 80, 1, 40010)
    assert net.arrived([answered]) == {1}


def test_no_route_of_the_senders_choice(net: Lab, pods: Pods) -> None:
    for way in (pods.friend, net.gateway, pods.victim):
        for kind in (131, 137, 7):  # loose and strict source route, record route
            last = ipaddress.IPv4Address(pods.victim).packed
            options = bytes((kind, 7, 4)) + last + b"\0"
            body = datagram(pods.hostile, way)
            sent(net, pods.hostile, frame(net, pods, packet(pods.hostile, way, PROTOCOLS["udp"], body, options)))
    assert not reached(net, pods.victim)
    assert not reached(net, pods.friend)


def test_fragments_are_judged_whole(net: Lab, pods: Pods) -> None:
    long = datagram(pods.hostile, pods.friend, more=b"." * 40)

    def fragments(target: str, body: bytes, cut: int) -> list[bytes]:
        first = packet(pods.hostile, target, PROTOCOLS["udp"], body[:cut], offset=_MORE_FRAGMENTS)
        return [first, packet(pods.hostile, target, PROTOCOLS["udp"], body[cut:], offset=cut // 8)]

    sent(net, pods.hostile, *(frame(net, pods, item) for item in fragments(pods.friend, long, 16)))
    assert reached(net, pods.friend)
    for cut in (8, 16, 24):
        sent(net, pods.hostile, *(frame(net, pods, item) for item in fragments(pods.victim, long, cut)))
        sent(net, pods.hostile, *(frame(net, pods, item) for item in reversed(fragments(pods.victim, long, cut))))
    # To the friend's other port, under a header with the allowed one that the second fragment overwrites (RFC 1858).
    forged = datagram(pods.hostile, pods.friend, port=81, more=b"!" * 40)
    first = packet(pods.hostile, pods.friend, PROTOCOLS["udp"], long[:16], offset=_MORE_FRAGMENTS)
    over = packet(pods.hostile, pods.friend, PROTOCOLS["udp"], forged, offset=0)
    rest = packet(pods.hostile, pods.friend, PROTOCOLS["udp"], forged[8:], offset=1)
    sent(net, pods.hostile, *(frame(net, pods, item) for item in (first, over, first, rest)))
    assert not reached(net, pods.victim)
    assert not any(b"!!" in item.body for item in net.received(pods.friend))


def test_no_segment_from_the_middle_of_a_connection(net: Lab, pods: Pods) -> None:
    for flags in (0x00, 0x01, 0x04, 0x10, 0x11, 0x12, 0x14, 0x18, 0x29, 0x3F, 0xC2):
        probe = Probe(pods.hostile, pods.victim, "tcp", 80, 7, 41000 + flags)
        content = packet(pods.hostile, pods.victim, PROTOCOLS["tcp"], body_of(probe, flags) + _MARK)
        sent(net, pods.hostile, frame(net, pods, content))
    assert not reached(net, pods.victim)


def error(quoted: bytes, kind: int, code: int = 0) -> bytes:
    """An error message of ICMP about a packet, whose content has the mark."""
    plain = struct.pack("!BBHI", kind, code, 0, 0) + quoted + _MARK * 20
    return plain[:2] + struct.pack("!H", checksum(plain)) + plain[4:]


def test_no_error_message_about_a_connection_of_others(net: Lab, pods: Pods) -> None:
    known = Probe(pods.friend, pods.victim, "udp", 80, 5, 42000)
    assert net.arrived([known]) == {5}
    reply = Probe(pods.victim, pods.friend, "udp", 42000, 6, 80)
    assert net.arrived([reply]) == {6}
    for quoted, to in ((written(known), pods.friend), (written(reply), pods.victim), (written(known), pods.victim)):
        for kind, code in ((3, 1), (3, 3), (3, 4), (4, 0), (5, 1), (11, 0), (12, 0)):
            content = packet(pods.hostile, to, PROTOCOLS["icmp"], error(quoted, kind, code))
            sent(net, pods.hostile, frame(net, pods, content))
    assert not reached(net, pods.victim)
    assert not reached(net, pods.friend)
    # Who takes part may say so.
    closed = packet(pods.victim, pods.friend, PROTOCOLS["icmp"], error(written(known), 3, 3))
    sent(net, pods.victim, mac(net.gateway) + mac(pods.victim) + _IPV4.to_bytes(2) + closed)
    assert reached(net, pods.friend)


def test_no_answer_that_nobody_asked_for(net: Lab, pods: Pods) -> None:
    for kind in (0, 5, 9, 14, 16, 18):
        content = packet(pods.hostile, pods.victim, PROTOCOLS["icmp"], error(b"", kind))
        sent(net, pods.hostile, frame(net, pods, content))
    assert not reached(net, pods.victim)


def test_a_reply_is_one_only_to_who_asked(net: Lab, pods: Pods) -> None:
    """The machine asks the hostile pod; its answer may go to the machine, not to others from the same port."""
    asked = Probe(net.machine, pods.hostile, "udp", 80, 8, 43000)
    assert net.arrived([asked]) == {8}
    for target in (pods.victim, pods.friend, pods.new):
        content = packet(pods.hostile, target, PROTOCOLS["udp"], datagram(pods.hostile, target, 43000, 80))
        sent(net, pods.hostile, frame(net, pods, content))
    assert not any(reached(net, target) for target in (pods.victim, pods.friend, pods.new))


def test_marks_of_packets_stay_in_the_pod(net: Lab, pods: Pods) -> None:
    """Container groups that are no pods are marked in the router, and no pod marks itself."""

    def marked() -> socket.socket:
        made = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
        made.setsockopt(socket.SOL_SOCKET, _SO_MARK, router.GROUP_SENDS | router.GROUP_RECEIVES)
        return made

    with inside(net.pod_namespace(pods.new), marked) as sender:
        body = datagram(pods.new, pods.friend)
        sender.sendto(packet(pods.new, pods.friend, PROTOCOLS["udp"], body), (pods.friend, 0))
    assert not reached(net, pods.friend)


def test_a_pod_has_its_extension_or_the_tags_of_a_virtual_node() -> None:
    tags = {"PodName": "a", "Namespace": "b", "NodeName": "c", "UID": "d", "ClusterName": "e"}
    plain = GroupProperties(containers=[])
    assert member_of("10.9.0.5", plain, tags).is_pod
    assert member_of("10.9.0.5", msgspec.structs.replace(plain, pod=True), {}).is_pod
    assert not member_of("10.9.0.5", plain, {"PodName": "a"}).is_pod


def test_a_connection_ends_when_a_policy_comes_to_forbid_it(net: Lab, pods: Pods) -> None:
    opened = Probe(pods.friend, pods.victim, "udp", 80, 1, 44000)
    answer = Probe(pods.victim, pods.friend, "udp", 44000, 2, 80)
    assert net.arrived([opened, answer]) == {1, 2}
    before = isolated(pods)
    closed: Object = policy("a", "in", {"matchLabels": {"app": "victim"}}, ingress=[])
    load(net, before._replace(policies=[before.policies[0], closed]))
    assert net.arrived([opened, answer]) == set()
    load(net, before)
    assert net.arrived([opened, answer]) == {1, 2}


def test_an_address_that_changes_hands_has_nothing_of_the_pod_before(net: Lab, pods: Pods) -> None:
    cluster = isolated(pods)
    opened = Probe(pods.friend, pods.victim, "udp", 80, 1, 45000)
    assert net.arrived([opened]) == {1}
    # The friend is gone, and its address is unknown, until a stranger has it.
    load(net, cluster._replace(pods=[item for item in cluster.pods if item["metadata"]["name"] != "friend"]))
    assert net.arrived([opened]) == set()
    stranger = pod("a", "stranger", pods.friend, {"app": "stranger"})
    load(net, cluster._replace(pods=[cluster.pods[0], stranger, cluster.pods[2]]))
    assert net.arrived([opened]) == set()
