"""The server itself: sizes, transports, who may ask, and what is forwarded."""

from __future__ import annotations

import random
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import dns.exception
import dns.flags
import dns.message
import dns.query
import dns.rrset
import pytest
from dns.message import Message
from dns.rcode import Rcode

from tests.controllers.space import Object, Space
from tests.network.name_servers import HOST, POD, Peer, Served, found, values

_VERSION = "dns-version.cluster.local"


def _answer(query: Message, *addresses: str, ttl: int = 60) -> Message:
    response = dns.message.make_response(query, recursion_available=True)
    if addresses:
        response.answer.append(dns.rrset.from_text(query.question[0].name, ttl, "IN", "A", *addresses))
    return response


@pytest.fixture
def upstream(served: Served) -> Iterator[Callable[..., Peer]]:
    """Puts name servers of others behind the server."""
    made: list[Peer] = []

    def put(*answers: Callable[[Message], Message | bytes | None]) -> Peer:
        made.extend(Peer(answer) for answer in answers)
        served.upstreams = [each.address for each in made]
        return made[0]

    yield put
    served.upstreams = []
    for each in made:
        each.close()


def _name() -> str:
    """A name that no test has asked for."""
    return f"n{random.getrandbits(60):x}.example"


@pytest.fixture
def many(space: Space, served: Served) -> str:
    """A headless Service with more addresses than a datagram holds."""
    space.make("services", {"metadata": {"name": "many"}, "spec": {"clusterIP": "None"}})
    endpoints = [{"addresses": [f"10.9.{n // 250}.{n % 250 + 1}"], "conditions": {}} for n in range(200)]
    body: Object = {
        "metadata": {"name": "many", "labels": {"kubernetes.io/service-name": "many"}},
        "addressType": "IPv4",
        "endpoints": endpoints,
        "ports": [],
    }
    space.make("endpointslices", body)
    name = f"many.{space.name}.svc.cluster.local"
    served.wait(lambda answer: bool(answer.answer), name)
    return name


def test_an_answer_that_is_too_long_is_cut_and_whole_over_tcp(served: Served, many: str) -> None:
    for size, most in ((None, 512), (4096, 1232), (100, 512)):
        answer = served.ask(many, edns=size)
        assert answer.flags & dns.flags.TC
        assert len(answer.to_wire()) <= most
        assert (answer.edns == 0) is (size is not None)
    whole = served.ask(many, stream=True)
    assert not whole.flags & dns.flags.TC
    assert len(values(whole)) == 200


@pytest.mark.skipif(shutil.which("dig") is None, reason="dig of Debian's bind9-dnsutils")
def test_dig_gets_the_whole_answer(served: Served, many: str) -> None:
    def dig(*options: str) -> list[str]:
        command = ["dig", f"@{HOST}", "-p", str(served.port), many, "A", "+short", *options]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()

    assert len(dig()) == 200
    assert len(dig("+tcp")) == 200


def test_several_questions_on_one_connection(served: Served) -> None:
    with socket.create_connection((HOST, served.port)) as connection:
        for number in range(3):
            query = dns.message.make_query(_VERSION, "TXT", id=number)
            dns.query.send_tcp(connection, query)
        for number in range(3):
            answer, _ = dns.query.receive_tcp(connection, None)
            assert answer.id == number
            assert values(answer, "TXT") == ['"1.1.0"']


def test_the_names_of_the_cluster_are_for_its_pods(served: Served, space: Space, hosts: Path) -> None:
    pod: Object = {"metadata": {"name": "asking"}, "spec": {"containers": [{"name": "main", "image": "bb"}]}}
    space.make("pods", pod)
    name = "kubernetes.default.svc.cluster.local"
    assert values(served.ask("acrdemo.azurecr.io", source=POD)) == ["127.44.1.2"]
    with ThreadPoolExecutor() as threads:
        # A pod may ask before the API server has its address.
        early = threads.submit(served.ask, name, source=POD)
        space.status("pods", "asking", podIP=POD, podIPs=[{"ip": POD}])
        assert values(early.result()) == values(served.ask(name)) != []
    space.status("pods", "asking", phase="Succeeded")
    # Its address may be somebody else's now.
    served.wait(lambda answer: answer.rcode() == Rcode.REFUSED, name, source=POD)
    assert served.ask("1.0.0.10.in-addr.arpa", "PTR", source=POD).rcode() != Rcode.NOERROR


def test_hosts_of_the_machine(served: Served, hosts: Path) -> None:
    assert values(served.ask("acrdemo.azurecr.io")) == values(served.ask("ALIAS.example")) == ["127.44.1.2"]
    assert values(served.ask("2.1.44.127.in-addr.arpa", "PTR"), "PTR") == ["acrdemo.azurecr.io."]
    assert values(served.ask("six.example", "AAAA"), "AAAA") == ["::1"]
    assert served.ask("acrdemo.azurecr.io", "AAAA").rcode() == Rcode.NOERROR
    with hosts.open("a") as file:
        file.write("127.44.1.3 later.example\n")
    served.wait(found("127.44.1.3"), "later.example")


def test_names_of_container_groups_have_a_server_of_their_own(served: Served) -> None:
    assert values(served.ask("my-app.eastus.azurecontainer.io", source=POD)) == ["10.241.0.77"]


def test_other_names_are_forwarded_once_and_kept(served: Served, upstream: Callable[..., Peer]) -> None:
    peer = upstream(lambda query: _answer(query, "192.0.2.1"))
    name = _name()
    answer = served.ask(name)
    assert values(answer) == ["192.0.2.1"]
    assert not answer.flags & dns.flags.AA
    again = served.ask(name.upper())
    assert values(again) == ["192.0.2.1"]
    assert str(again.question[0].name) == f"{name.upper()}."
    assert len(peer.questions) == 1
    for _ in range(20):
        served.ask(_name())
    assert len(set(peer.ports)) > 10
    assert len({query.id for query in peer.questions}) > 10


def test_the_same_question_of_many_is_asked_once(served: Served, upstream: Callable[..., Peer]) -> None:
    peer = upstream(lambda query: None)  # the first is lost: all wait for the same
    name = _name()
    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(lambda _: served.ask(name).rcode(), range(8)))
    assert answers == [Rcode.SERVFAIL] * 8
    assert len(peer.questions) == 1


def test_absent_names_are_kept_as_their_authority_says(served: Served, upstream: Callable[..., Peer]) -> None:
    def absent(query: Message) -> Message:
        response = _answer(query)
        response.set_rcode(Rcode.NXDOMAIN)
        response.authority.append(dns.rrset.from_text("example.", 60, "IN", "SOA", "a. b. 1 2 3 4 5"))
        return response

    peer = upstream(absent)
    name = _name()
    assert [served.ask(name).rcode() for _ in range(3)] == [Rcode.NXDOMAIN] * 3
    assert len(peer.questions) == 1


def test_the_next_server_answers_for_one_that_fails(served: Served, upstream: Callable[..., Peer]) -> None:
    def failing(query: Message) -> Message:
        response = _answer(query)
        response.set_rcode(Rcode.SERVFAIL)
        return response

    upstream(failing, lambda query: _answer(query, "192.0.2.2"))
    assert values(served.ask(_name())) == ["192.0.2.2"]


def test_a_long_answer_of_others_is_fetched_over_tcp(served: Served, upstream: Callable[..., Peer]) -> None:
    upstream(lambda query: _answer(query, *(f"192.0.2.{number}" for number in range(1, 101))))
    name = _name()
    assert served.ask(name, edns=None).flags & dns.flags.TC
    assert len(values(served.ask(name, stream=True))) == 100


def test_a_server_without_edns_is_asked_without(served: Served, upstream: Callable[..., Peer]) -> None:
    def old(query: Message) -> Message:
        response = _answer(query, *(["192.0.2.3"] if query.edns < 0 else []))
        if query.edns >= 0:
            response.set_rcode(Rcode.FORMERR)
            response.use_edns(False)
        return response

    upstream(old)
    assert values(served.ask(_name())) == ["192.0.2.3"]


def test_an_alias_to_the_outside_is_followed(served: Served, upstream: Callable[..., Peer], space: Space) -> None:
    upstream(lambda query: _answer(query, "192.0.2.4"))
    name = _name()
    space.make("services", {"metadata": {"name": "out"}, "spec": {"type": "ExternalName", "externalName": name}})
    answer = served.wait(found("192.0.2.4"), f"out.{space.name}.svc.cluster.local")
    assert values(answer, "CNAME") == [f"{name}."]
