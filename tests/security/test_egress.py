"""What users name is not reached where it is this machine, its neighbours on the link, or the cluster; nor is it told of."""

from __future__ import annotations

import contextlib
import json
import os
import random
import socket
import subprocess
import sys
import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest
from aiohttp import web
from aiohttp.abc import AbstractResolver, ResolveResult

from cumulet.common import config as settings
from cumulet.common.config import DEFAULT_PORTS, RoomName
from cumulet.common.egress import Egress, Exempt, RefusedAddressError
from cumulet.up.install import install
from tests.cloud import PEERS, Answer, Cloud
from tests.kube.conftest import Server
from tests.registry.login_server import AcrRegistry
from tests.security.hostile_registry import Answer as Answered
from tests.security.hostile_registry import HostileRegistry, hostile_registry

REFUSED = "the address is not allowed"


class Listener:
    """A port of this machine that must not be reached, and whether it was."""

    def __init__(self, host: str = "127.0.0.1") -> None:
        self._socket = socket.create_server((host, 0))
        self._socket.setblocking(False)
        self.port: int = self._socket.getsockname()[1]

    @property
    def was_reached(self) -> bool:
        """Whether anybody connected."""
        with contextlib.suppress(BlockingIOError):
            self._socket.accept()[0].close()
            return True
        return False

    def close(self) -> None:
        """Stop."""
        self._socket.close()


@pytest.fixture
def listener() -> Iterator[Listener]:
    """A port of this machine."""
    made = Listener()
    yield made
    assert not made.was_reached
    made.close()


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    """The rooms that connect to what users name."""
    # Services get addresses of 127.0.0.0/8, all of which are this machine's.
    external = f"127.{random.randrange(64, 128)}.{random.randrange(256)}.0/24"
    rooms: tuple[RoomName, ...] = ("arm", "registry", "kube", "balancer")
    made = Cloud(tmp_path_factory.mktemp("egress") / "data", *rooms, external_cidr=external, user_space_proxy=True)
    group = f"{made.subscription}/resourceGroups/group"
    assert made.arm("PUT", f"{group}?api-version=2024-03-01", {"location": "eastus"}).status == 201
    yield made
    made.close()


@pytest.fixture(scope="module")
def registry(cloud: Cloud) -> AcrRegistry:
    """A registry of ours."""
    return AcrRegistry(cloud, "acregress", adminUserEnabled=True)


@pytest.fixture(scope="module")
def peer(cloud: Cloud, tmp_path_factory: pytest.TempPathFactory) -> Iterator[HostileRegistry]:
    """Another registry, which may be reached."""
    with hostile_registry(cloud.config, tmp_path_factory.mktemp("peer"), PEERS) as made:
        yield made


@pytest.fixture(scope="module")
def server(cloud: Cloud) -> Server:
    """The API server."""
    return Server(cloud)


# The check.


def own_address() -> str:
    """An address of this machine that is not loopback."""
    listed = subprocess.run(["ip", "-j", "-4", "address"], capture_output=True, text=True, check=True).stdout
    found: list[str] = [item["local"] for link in json.loads(listed) for item in link["addr_info"]]
    return next(address for address in found if not address.startswith("127."))


@pytest.mark.parametrize(
    "address",
    [
        *("127.0.0.1", "127.255.255.254", "0.0.0.0", "0.1.2.3", "169.254.169.254", "224.0.0.1", "255.255.255.255"),
        *("240.0.0.1", "10.241.7.7", "10.0.0.1", "127.10.0.9", "168.63.129.16", "100.100.100.200"),
        *("::", "::1", "fe80::1", "fe80::1%eth0", "ff02::1", "fec0::1", "fd00:ec2::254"),
        *("::ffff:127.0.0.1", "::ffff:169.254.169.254", "::127.0.0.1", "64:ff9b::127.0.0.1", "64:ff9b:1::1"),
        *(
            "2002:7f00:1::1",
            "2002:a9fe:a9fe::1",
            "2001:0:7f00:1::1",
            "2001:0:808:808::5601:5601",
            "::ffff:10.241.7.7",
        ),
        *("localhost", "", "127.1", "2130706433", "0x7f000001", "0177.0.0.1", "1.2.3.4.5"),
    ],
)
def test_an_address_that_is_refused(address: str) -> None:
    egress = Egress(["10.241.0.0/16", "10.0.0.0/16", "127.10.0.0/24"])
    with pytest.raises(RefusedAddressError, match=REFUSED):
        egress.check(address, 443)


@pytest.mark.parametrize(
    "address", ["8.8.8.8", "10.9.9.9", "172.16.0.9", "192.168.7.7", "2606:4700::1111", "fd12::9"]
)
def test_an_address_that_is_allowed(address: str) -> None:
    Egress(["10.241.0.0/16"]).check(address, 443)


def test_every_address_of_this_machine_is_refused() -> None:
    with pytest.raises(RefusedAddressError):
        Egress().check(own_address(), 443)


def test_an_exception_is_for_what_it_names() -> None:
    egress = Egress(["10.241.0.0/16"], [Exempt("127.0.0.1:5000"), Exempt("10.241.1.0/24"), Exempt("[::1]:80")])
    for address, port in (("127.0.0.1", 5000), ("::ffff:127.0.0.1", 5000), ("10.241.1.9", 1), ("::1", 80)):
        egress.check(address, port)
    for address, port in (
        ("127.0.0.1", 5001),
        ("127.0.0.2", 5000),
        ("10.241.2.9", 1),
        ("::1", 81),
        ("2002:7f00:1::1", 443),
        ("2001:0:7f00:1::1", 5001),
    ):
        with pytest.raises(RefusedAddressError):
            egress.check(address, port)


@pytest.mark.parametrize(
    "text", ["localhost:80", "", "127.0.0.1:0", "127.0.0.1:70000", "10.0.0.0/33", "::1:80x", "a/8"]
)
def test_an_exception_that_is_none(text: str) -> None:
    with pytest.raises(ValueError, match="is not CIDR, ADDRESS or ADDRESS:PORT"):
        Exempt(text)


def test_exceptions_are_kept_until_others_are_given(tmp_path: Path) -> None:
    ports = dict.fromkeys(DEFAULT_PORTS, 0)
    exempt = [Exempt("127.0.0.1:5000"), Exempt("10.1.0.0/16"), Exempt("[fd00::1]:443")]
    install(tmp_path, ports=ports, allow_egress=exempt)
    assert install(tmp_path).allow_egress == exempt
    assert settings.load(tmp_path).allow_egress == exempt
    assert json.loads((tmp_path / "config.json").read_text())["allow_egress"] == [str(item) for item in exempt]
    assert install(tmp_path, allow_egress=[]).allow_egress == []
    (tmp_path / "config.json").write_text(
        (tmp_path / "config.json").read_text().replace('"allow_egress": []', '"allow_egress": ["x"]')
    )
    with pytest.raises(settings.ConfigError, match="is not CIDR"):
        settings.load(tmp_path)


def test_an_exception_that_is_none_is_refused_by_the_command(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "import cumulet.cli; cumulet.cli.main()", "up", "--allow-egress", "localhost:1"]
    done = subprocess.run(
        command,
        env={**os.environ, "CUMULET_DATA_DIR": str(tmp_path), "COLUMNS": "200"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "is not CIDR" in done.stderr
    assert not list(tmp_path.iterdir())


class _Rebinding(AbstractResolver):
    """Gives a name another address each time."""

    def __init__(self, *addresses: str) -> None:
        self._addresses = iter(addresses)

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        address = next(self._addresses)
        return [ResolveResult(hostname=host, host=address, port=port, family=socket.AF_INET, proto=0, flags=0)]

    async def close(self) -> None:
        """Nothing is held."""


@contextlib.asynccontextmanager
async def serving(location: str = "") -> AsyncIterator[int]:
    """A server at the address of peers that answers everything, with a redirect where there is a location; its port."""

    async def handle(_: web.BaseRequest) -> web.StreamResponse:
        return web.Response(status=307 if location else 204, headers={"Location": location} if location else {})

    runner = web.ServerRunner(web.Server(handle))
    await runner.setup()
    try:
        await web.TCPSite(runner, PEERS, 0).start()
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()


async def test_a_name_is_checked_each_time_that_it_is_connected_to(listener: Listener) -> None:
    resolver = _Rebinding(PEERS, "127.0.0.1")
    async with serving() as there, Egress(exempt=[Exempt(PEERS)]).session(resolver=resolver) as session:
        async with session.get(f"http://rebinding.test:{there}/") as answer:
            assert answer.status == 204
        with pytest.raises(aiohttp.ClientConnectorError, match=REFUSED):
            await session.get(f"http://rebinding.test:{listener.port}/")


async def test_a_redirect_is_checked(listener: Listener) -> None:
    async with (
        serving(f"http://127.0.0.1:{listener.port}/") as there,
        Egress(exempt=[Exempt(PEERS)]).session() as session,
    ):
        with pytest.raises(aiohttp.ClientConnectorError, match=REFUSED):
            await session.get(f"http://{PEERS}:{there}/")


async def test_a_proxy_of_the_environment_is_not_used(listener: Listener, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{listener.port}")
    exempt = [Exempt(PEERS), Exempt(f"127.0.0.1:{listener.port}")]
    async with serving() as there, Egress(exempt=exempt).session() as session:
        async with session.get(f"http://{PEERS}:{there}/") as answer:
            assert answer.status == 204
        with pytest.raises(aiohttp.ClientConnectorError, match=REFUSED):
            await session.get("http://127.0.0.1:1/")


# Webhooks of registries.


def delivered(registry: AcrRegistry, url: str) -> dict[str, Any]:
    """What came of the ping of a webhook."""
    name = f"hook{uuid.uuid4().hex[:8]}"
    body = {"properties": {"serviceUri": url, "actions": ["push"]}}
    assert registry.arm("PUT", f"/webhooks/{name}", body).status == 201
    registry.arm("POST", f"/webhooks/{name}/ping")
    while not (event := registry.arm("POST", f"/webhooks/{name}/listEvents").body["value"][0])[
        "eventResponseMessage"
    ]:
        pass
    assert registry.arm("DELETE", f"/webhooks/{name}").status in (200, 204)
    found: dict[str, Any] = event["eventResponseMessage"]
    return found


HOSTS = ("127.0.0.1", "localhost", "[::ffff:127.0.0.1]", "0.0.0.0", "2130706433", "0x7f.1", "127.1", "0177.0.0.1")


@pytest.mark.parametrize("host", HOSTS)
def test_a_webhook_of_a_registry_does_not_reach_this_machine(
    registry: AcrRegistry, listener: Listener, host: str
) -> None:
    found = delivered(registry, f"http://{host}:{listener.port}/")
    assert (found["statusCode"], found["content"]) == ("0", "")


@pytest.mark.parametrize("address", ["169.254.169.254", "10.241.0.9", "10.0.0.1", "127.10.0.1"])
def test_a_webhook_of_a_registry_does_not_reach_the_cluster_or_a_metadata_service(
    registry: AcrRegistry, address: str
) -> None:
    assert REFUSED in delivered(registry, f"http://{address}/metadata/instance")["reasonPhrase"]


def test_a_webhook_does_not_tell_which_ports_are_open(
    cloud: Cloud, registry: AcrRegistry, listener: Listener
) -> None:
    port = listener.port
    found = [
        delivered(registry, f"http://127.0.0.1:{number}/") for number in (port, 1, cloud.config.addresses["arm"].port)
    ]
    reasons = {item["reasonPhrase"].partition(": ")[2] for item in found}
    assert len(reasons) == 1
    assert REFUSED in reasons.pop()


# Images from elsewhere.


def imported(registry: AcrRegistry, server: str, image: str = "a/b:v1", **source: Any) -> Answer:
    """The answer to an import."""
    body = {
        "source": {"registryUri": server, "sourceImage": image, **source},
        "targetTags": [f"t{uuid.uuid4().hex}:v1"],
    }
    return registry.arm("POST", "/importImage", body)


@pytest.mark.parametrize("host", HOSTS[:2])
def test_an_import_does_not_reach_this_machine(registry: AcrRegistry, listener: Listener, host: str) -> None:
    answer = imported(registry, f"{host}:{listener.port}")
    assert answer.code == "ImportSourceFailed"
    assert REFUSED in answer.body["error"]["message"]


def test_an_import_does_not_tell_which_ports_are_open(
    cloud: Cloud, registry: AcrRegistry, listener: Listener
) -> None:
    ports = (listener.port, 1, cloud.config.addresses["registry"].port)
    told = {
        imported(registry, f"127.0.0.1:{port}").body["error"]["message"].replace(f":{port}", "") for port in ports
    }
    assert len(told) == 1


def test_a_cache_rule_does_not_reach_this_machine(registry: AcrRegistry, listener: Listener) -> None:
    rule = {"sourceRepository": f"127.0.0.1:{listener.port}/app", "targetRepository": "inside"}
    assert registry.arm("PUT", "/cacheRules/inside", {"properties": rule}).status == 201
    answer = registry.manifest("inside", "v1", token=registry.admin_token("repository:inside:pull"))
    assert answer.status == 503
    assert REFUSED in answer.body["errors"][0]["message"]


@pytest.mark.parametrize(
    "inside", ["https://127.0.0.1:{port}/", "https://169.254.169.254/", "http://127.0.0.1:{port}/"]
)
def test_a_registry_sends_nobody_to_this_machine(
    registry: AcrRegistry, peer: HostileRegistry, listener: Listener, inside: str
) -> None:
    url = inside.format(port=listener.port)
    path = "/v2/sends/away/manifests/v1"
    credentials = {"username": "somebody", "password": "secret"}
    realm = Answered(status=401, headers={"WWW-Authenticate": f'Bearer realm="{url}",service="x"'})
    for answer in (Answered(status=307, headers={"Location": url}), realm):
        peer.answers[path] = answer
        told = imported(registry, peer.address, "sends/away:v1", credentials=credentials)
        assert told.code == "ImportSourceFailed"
        message = told.body["error"]["message"]
        assert any(text in message for text in (REFUSED, "only https", "not an https address")), message


def test_a_redirect_of_another_registry_takes_no_password_along(
    cloud: Cloud, registry: AcrRegistry, peer: HostileRegistry, tmp_path: Path
) -> None:
    with hostile_registry(cloud.config, tmp_path, PEERS) as other:
        path = "/v2/redirected/manifests/v1"
        peer.answers[path] = Answered(status=307, headers={"Location": f"https://{other.address}{path}"})
        challenge = f'Bearer realm="https://{other.address}/token",service="x"'
        for scheme in (challenge, 'Basic realm="x"'):
            other.answers[path] = Answered(status=401, headers={"WWW-Authenticate": scheme})
            credentials = {"username": "somebody", "password": "secret"}
            told = imported(registry, peer.address, "redirected:v1", credentials=credentials)
            assert told.code == "ImportSourceFailed"
        assert other.asked
        assert all("Authorization" not in item.headers for item in other.asked)
        assert not other.asked_for("/token")


def test_a_manifest_of_another_registry_is_read_to_its_end_and_no_further(
    cloud: Cloud, registry: AcrRegistry, peer: HostileRegistry
) -> None:
    peer.image("long", [b"layer"], annotations={f"n{number}": "x" * 10_000 for number in range(100)})
    assert imported(registry, peer.address, "long:v1").status == 200
    peer.answers["/v2/longer/manifests/v1"] = Answered(b" " * (cloud.config.registry_limits.manifest_bytes + 1))
    assert "larger than" in imported(registry, peer.address, "longer:v1").body["error"]["message"]


def test_a_blob_of_another_registry_has_a_limit(cloud: Cloud, peer: HostileRegistry) -> None:
    peer.image("big", [b"x" * 50_000], packed=False)
    limits = msgspec.structs.replace(cloud.config.registry_limits, blob_bytes=40_000)
    with cloud.changed("registry", registry_limits=limits):
        message = imported(AcrRegistry(cloud, "acrsmall"), peer.address, "big:v1").body["error"]["message"]
    assert "the blob is larger than 40000 bytes" in message


# Webhooks and aggregated servers of the API server.


def admission(server: Server, client: dict[str, Any]) -> str:
    """What is said where a webhook is asked."""
    name = f"w{uuid.uuid4().hex[:8]}"
    space = server.namespace(name)
    rule = {"operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["configmaps"]}
    webhook = {
        "name": "a.example.com",
        "clientConfig": client,
        "rules": [rule],
        "sideEffects": "None",
        "admissionReviewVersions": ["v1"],
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": name}},
    }
    path = "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations"
    server.make(path, {"metadata": {"name": name}, "webhooks": [webhook]})
    answer = server.call("POST", f"{space}/configmaps", {"metadata": {"name": "m"}})
    assert server.call("DELETE", f"{path}/{name}").status == 200
    assert answer.status == 500
    message: str = answer.body["message"]
    return message


@pytest.mark.parametrize("host", HOSTS)
def test_a_webhook_of_the_api_server_does_not_reach_this_machine(
    server: Server, listener: Listener, host: str
) -> None:
    admission(server, {"url": f"https://{host}:{listener.port}/x"})


def test_a_webhook_of_the_api_server_does_not_tell_which_ports_are_open(
    server: Server, cloud: Cloud, listener: Listener
) -> None:
    ports = (listener.port, 1, cloud.config.addresses["kube"].port)
    told = {admission(server, {"url": f"https://127.0.0.1:{port}/x"}).replace(f":{port}", "") for port in ports}
    assert len(told) == 1
    assert REFUSED in told.pop()


def leading(server: Server, listener: Listener, **spec: Any) -> str:
    """A namespace with a service `s` whose endpoint is this machine."""
    name = f"s{uuid.uuid4().hex[:8]}"
    space = server.namespace(name)
    server.make(f"{space}/services", {"metadata": {"name": "s"}, "spec": {"ports": [{"port": 443}], **spec}})
    slice_ = {
        "metadata": {"name": "s", "labels": {"kubernetes.io/service-name": "s"}},
        "addressType": "IPv4",
        "endpoints": [{"addresses": ["127.0.0.1"]}],
        "ports": [{"port": listener.port}],
    }
    server.make(f"/apis/discovery.k8s.io/v1/namespaces/{name}/endpointslices", slice_)
    return name


def test_a_service_s_endpoint_does_not_lead_a_webhook_to_this_machine(server: Server, listener: Listener) -> None:
    name = leading(server, listener)
    assert REFUSED in admission(server, {"service": {"namespace": name, "name": "s"}})


def test_a_service_s_endpoint_does_not_lead_the_balancer_to_this_machine(server: Server, listener: Listener) -> None:
    name = leading(server, listener, type="LoadBalancer")
    path = f"/api/v1/namespaces/{name}/services/s"
    while not (ingress := server.call("GET", path).body["status"]["loadBalancer"].get("ingress")):
        pass
    while True:
        try:
            client = socket.create_connection((ingress[0]["ip"], 443), timeout=30)
            break
        except ConnectionRefusedError:  # nothing listens until the endpoint is known
            continue
    with client:
        assert client.recv(1) == b""
