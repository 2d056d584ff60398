"""The names of a cluster: Kubernetes DNS-Based Service Discovery 1.1.0, section by section."""

from __future__ import annotations

import dns.flags
import dns.rcode
import pytest
from dns.rcode import Rcode

from tests.cloud import Cloud
from tests.controllers.space import Object, Space
from tests.network.name_servers import Served, found, values

_PORTS: list[Object] = [{"name": "http", "port": 80}, {"name": "dns", "port": 53, "protocol": "UDP"}]


def _endpoint(address: str, hostname: str | None = None, *, ready: bool = True) -> Object:
    return {
        "addresses": [address],
        "conditions": {"ready": ready},
        **({"hostname": hostname} if hostname is not None else {}),
    }


def _slice(space: Space, service: str, *endpoints: Object, ports: list[Object] | None = None) -> None:
    body: Object = {
        "metadata": {"name": f"{service}-1", "labels": {"kubernetes.io/service-name": service}},
        "addressType": "IPv4",
        "endpoints": list(endpoints),
        "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}] if ports is None else ports,
    }
    space.make("endpointslices", body)


def _service(space: Space, name: str, **spec: object) -> Object:
    return space.make("services", {"metadata": {"name": name}, "spec": {"ports": _PORTS, **spec}})


@pytest.fixture
def zone(space: Space) -> str:
    """The zone of the test's namespace."""
    return f"{space.name}.svc.cluster.local"


def test_the_version_of_the_schema(served: Served) -> None:
    answer = served.ask("dns-version.cluster.local", "TXT")
    assert values(answer, "TXT") == ['"1.1.0"']
    assert answer.answer[0].ttl == 28800
    assert answer.flags & dns.flags.AA


def test_a_service_has_its_cluster_ip(served: Served, space: Space, zone: str) -> None:
    address = _service(space, "web")["spec"]["clusterIP"]
    answer = served.wait(found(address), f"web.{zone}")
    assert answer.flags & dns.flags.AA
    assert answer.flags & dns.flags.RA
    assert answer.rcode() == Rcode.NOERROR


def test_the_case_of_letters_is_ignored_and_repeated(served: Served, space: Space, zone: str) -> None:
    address = _service(space, "web")["spec"]["clusterIP"]
    served.wait(found(address), f"web.{zone}")
    shouted = f"WeB.{zone.upper()}."
    answer = served.ask(shouted)
    assert values(answer) == [address]
    assert str(answer.question[0].name) == shouted
    assert str(answer.answer[0].name) == shouted


def test_ports_have_srv_records_with_the_address_beside_them(served: Served, space: Space, zone: str) -> None:
    address = _service(space, "web")["spec"]["clusterIP"]
    served.wait(found(address), f"web.{zone}")
    answer = served.ask(f"_http._tcp.web.{zone}", "SRV")
    assert values(answer, "SRV") == [f"0 100 80 web.{zone}."]
    assert [str(record) for each in answer.additional for record in each] == [address]
    assert values(served.ask(f"_dns._udp.web.{zone}", "SRV"), "SRV") == [f"0 100 53 web.{zone}."]
    # CoreDNS lists all ports under the name of the Service.
    assert len(values(served.ask(f"web.{zone}", "SRV"), "SRV")) == 2
    for name in (f"_http._udp.web.{zone}", f"_ftp._tcp.web.{zone}", f"_._tcp.web.{zone}", f"_sctp.web.{zone}"):
        assert served.ask(name, "SRV").rcode() == Rcode.NXDOMAIN
    # Names above those of the ports exist.
    assert served.ask(f"_tcp.web.{zone}", "SRV").rcode() == Rcode.NOERROR


def test_cluster_ips_have_names(served: Served, space: Space, zone: str) -> None:
    address = _service(space, "web")["spec"]["clusterIP"]
    reverse = ".".join(reversed(address.split("."))) + ".in-addr.arpa"
    served.wait(found(f"web.{zone}.", kind="PTR"), reverse, "PTR")
    assert served.ask(reverse, "A").rcode() == Rcode.NOERROR


def test_an_address_of_the_cluster_without_a_name_has_none_elsewhere(served: Served) -> None:
    answer = served.ask("9.9.1.127.in-addr.arpa", "PTR")
    assert answer.rcode() == Rcode.NXDOMAIN
    assert str(answer.authority[0].name) == "1.127.in-addr.arpa."


def test_a_headless_service_has_the_addresses_of_ready_endpoints(served: Served, space: Space, zone: str) -> None:
    _service(space, "db", clusterIP="None")
    endpoints = _endpoint("10.1.2.3", "db-0"), _endpoint("10.1.2.4"), _endpoint("10.1.2.5", "db-2", ready=False)
    _slice(space, "db", *endpoints)
    served.wait(found("10.1.2.3", "10.1.2.4"), f"db.{zone}")
    assert values(served.ask(f"db-0.db.{zone}")) == ["10.1.2.3"]
    assert values(served.ask(f"10-1-2-4.db.{zone}")) == ["10.1.2.4"]
    assert served.ask(f"db-2.db.{zone}").rcode() == Rcode.NXDOMAIN
    answer = served.ask(f"_http._tcp.db.{zone}", "SRV")
    assert values(answer, "SRV") == [f"0 50 8080 10-1-2-4.db.{zone}.", f"0 50 8080 db-0.db.{zone}."]
    assert {str(record) for each in answer.additional for record in each} == {"10.1.2.3", "10.1.2.4"}
    assert values(served.ask("3.2.1.10.in-addr.arpa", "PTR"), "PTR") == [f"db-0.db.{zone}."]


def test_a_headless_service_without_ports_has_addresses(served: Served, space: Space, zone: str) -> None:
    space.make("services", {"metadata": {"name": "bare"}, "spec": {"clusterIP": "None"}})
    _slice(space, "bare", _endpoint("10.1.9.1"), ports=[])
    served.wait(found("10.1.9.1"), f"bare.{zone}")


def test_the_order_of_addresses_varies(served: Served, space: Space, zone: str) -> None:
    _service(space, "db", clusterIP="None")
    _slice(space, "db", *(_endpoint(f"10.1.3.{number}") for number in range(1, 4)))
    served.wait(found("10.1.3.1", "10.1.3.2", "10.1.3.3"), f"db.{zone}")
    assert len({str(served.ask(f"db.{zone}").answer[0][0]) for _ in range(6)}) == 3


def test_a_change_is_seen_at_once_in_the_answers(served: Served, space: Space, zone: str) -> None:
    _service(space, "db", clusterIP="None")
    _slice(space, "db", _endpoint("10.1.4.1"))
    served.wait(found("10.1.4.1"), f"db.{zone}")
    space.patch("endpointslices", "db-1", {"endpoints": [_endpoint("10.1.4.2")]}, kind="merge")
    served.wait(found("10.1.4.2"), f"db.{zone}")
    space.delete("services", "db")
    served.wait(lambda answer: answer.rcode() == Rcode.NXDOMAIN, f"db.{zone}")


def test_an_external_name_is_an_alias_that_is_followed(served: Served, space: Space, zone: str) -> None:
    address = _service(space, "web")["spec"]["clusterIP"]
    outer = {"type": "ExternalName", "externalName": f"web.{zone}", "ports": []}
    _service(space, "alias", **outer)
    answer = served.wait(found(address), f"alias.{zone}")
    assert values(answer, "CNAME") == [f"web.{zone}."]
    assert values(served.ask(f"alias.{zone}", "CNAME"), "CNAME") == [f"web.{zone}."]
    _service(space, "hosts", **{**outer, "externalName": "acrdemo.azurecr.io"})
    served.wait(found("127.44.1.2"), f"hosts.{zone}")
    assert served.ask(f"x.alias.{zone}").rcode() == Rcode.NXDOMAIN


def test_aliases_in_a_circle_end(served: Served, space: Space, zone: str) -> None:
    for one, other in (("a", "b"), ("b", "a")):
        _service(space, one, type="ExternalName", externalName=f"{other}.{zone}", ports=[])
    served.wait(lambda answer: answer.rcode() == Rcode.SERVFAIL, f"a.{zone}")


def test_pods_have_names_of_their_addresses(served: Served, space: Space) -> None:
    def has_address(name: str) -> str:
        return ",".join(values(served.ask(name)))

    served.wait(found("10.1.2.3"), f"10-1-2-3.{space.name}.pod.cluster.local")
    assert has_address("10-1-2-3.default.pod.cluster.local") == "10.1.2.3"
    for name in (
        "10-1-2-3.nowhere.pod.cluster.local",
        "10-1-2-300.default.pod.cluster.local",
        "10-1-2.default.pod.cluster.local",
        "x.10-1-2-3.default.pod.cluster.local",
    ):
        assert served.ask(name).rcode() == Rcode.NXDOMAIN


def test_what_is_absent_says_for_how_long(served: Served, space: Space, zone: str) -> None:
    served.wait(lambda answer: answer.rcode() == Rcode.NOERROR, zone)
    for name in (f"none.{zone}", "web.nowhere.svc.cluster.local", "nowhere.svc.cluster.local", "x.cluster.local"):
        answer = served.ask(name)
        assert answer.rcode() == Rcode.NXDOMAIN
        (authority,) = answer.authority
        assert str(authority.name) == "cluster.local."
        assert (authority.ttl, authority[0].minimum) == (5, 5)


def test_names_between_others_exist(served: Served, space: Space, zone: str) -> None:
    for name in ("cluster.local", "svc.cluster.local", "pod.cluster.local", "default.pod.cluster.local"):
        answer = served.ask(name)
        assert (answer.rcode(), answer.answer) == (Rcode.NOERROR, [])
        assert answer.authority


@pytest.mark.parametrize("kind", ["AAAA", "MX", "HTTPS", "ANY", "TXT", "SOA"])
def test_other_records_of_a_service_are_absent_without_a_wait(
    served: Served, space: Space, zone: str, kind: str
) -> None:
    address = _service(space, "web")["spec"]["clusterIP"]
    served.wait(found(address), f"web.{zone}")
    answer = served.ask(f"web.{zone}", kind)
    assert (answer.rcode(), answer.answer) == (Rcode.NOERROR, [])
    assert answer.authority


def test_the_zone_has_an_authority_and_a_server(served: Served, control_plane: Cloud) -> None:
    assert values(served.ask("cluster.local", "NS"), "NS") == ["ns.dns.cluster.local."]
    assert values(served.ask("cluster.local", "SOA"), "SOA")[0].startswith("ns.dns.cluster.local. hostmaster.cluster")
    assert values(served.ask("ns.dns.cluster.local")) == ["127.0.0.1"]
