"""The name server against those who ask and those whom it asks: any bytes, any address, any answer."""

from __future__ import annotations

import random
import socket
import struct
from collections.abc import Callable, Iterator

import dns.exception
import dns.message
import dns.rrset
import pytest
from dns.message import Message
from dns.rcode import Rcode

from cumulet.common.config import DEFAULT_PORTS
from cumulet.network.dns import clients, forwarder
from cumulet.up.install import install
from tests.network.name_servers import HOST, POD, STRANGER, Peer, Served, values

_VERSION = "dns-version.cluster.local"


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """The server of an empty cluster. It waits less for others than usual."""
    folder = tmp_path_factory.mktemp("dns")
    config = install(folder / "data", ports=dict.fromkeys(DEFAULT_PORTS, 0))
    groups = Peer(lambda query: None)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(forwarder, "TRY", 1.0)
        patch.setattr(forwarder, "LIMIT", 1.5)
        patch.setattr(clients, "PATIENCE", 0.1)
        made = Served(config, folder / "hosts", groups.address, empty=True)
        yield made
        made.close()
    groups.close()


def _answer(query: Message, address: str) -> Message:
    response = dns.message.make_response(query, recursion_available=True)
    response.answer.append(dns.rrset.from_text(query.question[0].name, 60, "IN", "A", address))
    return response


def _ask_behind(served: Served, answers: list[Callable[[Message], Message | bytes | None]]) -> Message:
    """Ask for a name that servers of others answer for."""
    peers = [Peer(answer) for answer in answers]
    served.upstreams = [peer.address for peer in peers]
    try:
        return served.ask(f"n{random.getrandbits(60):x}.example")
    finally:
        served.upstreams = []
        for peer in peers:
            peer.close()


def test_answers_to_other_questions_are_not_believed(served: Served) -> None:
    def lying(query: Message) -> Message:
        return _answer(dns.message.make_query("other.example", "A", id=query.id), "192.0.2.66")

    def guessing(query: Message) -> Message:
        query.id ^= 1
        return _answer(query, "192.0.2.66")

    answers = [lying, guessing, lambda query: b"\0", lambda query: query.to_wire()]
    assert _ask_behind(served, answers).rcode() == Rcode.SERVFAIL


def test_a_server_that_sends_much_is_given_up(served: Served) -> None:
    assert _ask_behind(served, [lambda query: query.to_wire() + bytes(60000)]).rcode() == Rcode.SERVFAIL


def test_a_group_of_no_cluster_learns_nothing_of_the_cluster(served: Served) -> None:
    for name, kind in (("cluster.local", "SOA"), (_VERSION, "TXT"), ("kubernetes.default.svc.cluster.local", "A")):
        assert served.ask(name, kind, source=POD).rcode() == Rcode.REFUSED


def test_a_connection_can_hold_up_nobody(served: Served) -> None:
    with socket.create_connection((HOST, served.port)) as idle:
        idle.sendall(b"\xff\xff" + b"x" * 100)
        assert values(served.ask(_VERSION, "TXT", stream=True), "TXT")
        each = [socket.create_connection((HOST, served.port)) for _ in range(20)]
        assert each[-1].recv(1) == b""  # one client has so many connections and no more
        for connection in each:
            connection.close()


def test_strangers_get_no_answer_at_all(served: Served) -> None:
    with pytest.raises(dns.exception.Timeout):
        served.ask(_VERSION, "TXT", source=STRANGER, timeout=0.3)


def test_what_is_no_question_gets_an_error_or_silence(served: Served) -> None:
    query = dns.message.make_query(_VERSION, "TXT", use_edns=False, id=7).to_wire()

    def rcode(data: bytes) -> Rcode | None:
        reply = served.raw(data)
        return None if reply is None else Rcode(reply[3] & 15)

    assert rcode(b"") is None
    assert rcode(query[:11]) is None
    assert rcode(query[:2] + b"\x81\0" + query[4:]) is None  # an answer: two servers must not talk for ever
    assert rcode(query[:-3]) == Rcode.FORMERR
    assert rcode(query[:4] + b"\0\2" + query[6:]) == Rcode.FORMERR
    assert rcode(query[:4] + b"\0\0" + query[6:]) == Rcode.FORMERR
    assert rcode(query + b"x") == Rcode.FORMERR
    assert rcode(query[:2] + b"\x28\0" + query[4:]) == Rcode.NOTIMP
    assert rcode(query[:-4] + struct.pack("!HH", 252, 1)) == Rcode.REFUSED  # a transfer of the zone
    assert rcode(query[:-4] + struct.pack("!HH", 16, 3)) == Rcode.REFUSED  # the class CH
    assert rcode(query[:12] + b"\xc0\x0c\0\1\0\1") == Rcode.FORMERR  # a pointer to itself
    assert rcode(query + bytes(1300)) == Rcode.FORMERR
    assert served.raw(dns.message.make_query(_VERSION, "TXT", use_edns=1).to_wire()) is not None


def test_no_bytes_stop_the_server(served: Served) -> None:
    generator = random.Random(16)
    samples = [
        dns.message.make_query(_VERSION, "TXT", want_dnssec=True).to_wire(),
        dns.message.make_query("_http._tcp.kubernetes.default.svc.cluster.local", "SRV").to_wire(),
        dns.message.make_query("4.3.2.1.in-addr.arpa", "PTR", use_edns=False).to_wire(),
    ]
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.connect((HOST, served.port))
        for _ in range(3000):
            data = bytearray(generator.choice(samples))
            for _ in range(generator.randrange(1, 6)):
                match generator.randrange(4):
                    case 0:
                        data[generator.randrange(len(data))] = generator.randrange(256)
                    case 1:
                        del data[generator.randrange(len(data)) + 1 :]
                    case 2:
                        data += generator.randbytes(generator.randrange(40))
                    case _:
                        at = generator.randrange(len(data))
                        data[at:at] = generator.randbytes(generator.randrange(1, 4))
            client.send(data)
    assert values(served.ask(_VERSION, "TXT"), "TXT") == ['"1.1.0"']
    assert values(served.ask(_VERSION, "TXT", stream=True), "TXT") == ['"1.1.0"']
