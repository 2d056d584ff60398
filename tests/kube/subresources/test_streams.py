"""Streams as clients of every version open them, and as attackers do."""

from __future__ import annotations

import asyncio
import base64
import json
import ssl
import struct
import uuid
from collections.abc import Iterator

import pytest
from multidict import CIMultiDict
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus
from websockets.typing import Subprotocol
from yarl import URL

from cumulet.common import tls
from cumulet.common.spdy import PROTOCOL, Session, Stream
from cumulet.common.upgrade import RefusedError, upgrade
from tests.cloud import Cloud
from tests.kube.conftest import Program, programs
from tests.kube.kubelet import StandInKubelet
from tests.kube.test_nodes_and_pods import kubelet, own_address, ready_node, run

__all__ = ["kubelet"]

_FAILING = [("command", word) for word in ("sh", "-c", "echo out; exit 3")] + [("stdout", "true"), ("stderr", "true")]


@pytest.fixture(scope="module")
def kubectl(cluster: Cloud, kubelet: StandInKubelet, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    """kubectl in a namespace with a running pod, `p`."""
    name = f"t{uuid.uuid4().hex[:10]}"
    kubeconfig = cluster.config.kubeconfig_file("admin")
    made = Program(programs("kubectl")[0], kubeconfig, name, tmp_path_factory.mktemp("home"))
    made("create", "namespace", name)
    node = ready_node(made, kubelet.port)
    run(made, node, "p")
    yield made
    made("delete", "node", node)


@pytest.fixture
def pod(kubectl: Program, cluster: Cloud) -> URL:
    """The URL of the pod."""
    return URL(cluster.config.url("kube")) / "api/v1/namespaces" / kubectl.namespace / "pods/p"


@pytest.fixture
def context(cluster: Cloud) -> ssl.SSLContext:
    """The administrator's TLS context."""
    return tls.client_context(cluster.config.ca_file, *cluster.config.user_files())


def _offer(*versions: str) -> CIMultiDict[str]:
    return CIMultiDict(("X-Stream-Protocol-Version", version) for version in versions)


async def _whole(stream: Stream) -> bytes:
    whole = b""
    while found := await stream.read():
        whole += found
    return whole


@pytest.mark.parametrize("version", ["v4.channel.k8s.io", "v3.channel.k8s.io", "v2.channel.k8s.io", "channel.k8s.io"])
async def test_spdy_in_every_version(pod: URL, context: ssl.SSLContext, version: str) -> None:
    url = (pod / "exec").with_query(_FAILING)
    async with upgrade(url, PROTOCOL, _offer("v5.channel.k8s.io", version), context) as (carrier, answered):
        assert answered["X-Stream-Protocol-Version"] == version
        session = Session(carrier.send)
        running = asyncio.create_task(session.run(carrier.read))
        error, stdout, stderr = [await session.open({"streamType": name}) for name in ("error", "stdout", "stderr")]
        assert (await _whole(stdout), await _whole(stderr)) == (b"out\n", b"")
        said = await _whole(error)
        if version.startswith("v4"):
            assert json.loads(said)["details"]["causes"] == [{"reason": "ExitCode", "message": "3"}]
        else:
            assert said == b"command terminated with non-zero exit code: exit status 3"
        await running


async def test_the_size_of_a_terminal(pod: URL, context: ssl.SSLContext) -> None:
    url = (pod / "exec").with_query("command=head&command=-n3&stdin=true&stdout=true&tty=true")
    async with upgrade(url, PROTOCOL, _offer("v4.channel.k8s.io"), context) as (carrier, _):
        session = Session(carrier.send)
        running = asyncio.create_task(session.run(carrier.read))
        streams = {name: await session.open({"streamType": name}) for name in ("error", "stdin", "stdout", "resize")}
        # A size counts as one, however it is cut into frames.
        await streams["resize"].write(b'{"Width":80,"Height":24}\n{"Width":81,"Hei')
        await streams["resize"].write(b'ght":25}\n{"Width":82,"Height":26}\n')
        assert await _whole(streams["stdout"]) == (
            b'{"Width":80,"Height":24}\n{"Width":81,"Height":25}\n{"Width":82,"Height":26}\n'
        )
        await running


async def test_unknown_protocols_are_refused(pod: URL, context: ssl.SSLContext) -> None:
    url = (pod / "exec").with_query("command=true&stdout=true")
    with pytest.raises(RefusedError, match="unable to negotiate protocol: client supports") as refused:
        async with upgrade(url, PROTOCOL, _offer("v9.channel.k8s.io"), context):
            pass
    assert refused.value.status == 403
    with pytest.raises(RefusedError, match="names no protocol") as refused:
        async with upgrade(url, PROTOCOL, _offer(), context):
            pass
    assert refused.value.status == 400
    with pytest.raises(RefusedError, match="Upgrade request required") as refused:
        async with upgrade(url, "h2c", _offer("v4.channel.k8s.io"), context):
            pass
    assert refused.value.status == 400


async def test_a_stranger_on_a_spdy_connection_is_sent_away(
    kubectl: Program, pod: URL, context: ssl.SSLContext
) -> None:
    for raw in (
        b"\xff" * 100,
        struct.pack(">HHI", 0x8003, 1, 0xFF_FFFF),
        b"\x80\x03\x00\x01\x00\x00\x00\x00",
    ):
        url = (pod / "portforward").with_query("ports=80")
        async with upgrade(url, PROTOCOL, _offer("portforward.k8s.io"), context) as (carrier, answered):
            assert answered["X-Stream-Protocol-Version"] == "portforward.k8s.io"
            await carrier.send(raw)
            seen = b""
            while data := await carrier.read():
                seen += data
            assert b"\x80\x03\x00\x07" in seen  # GOAWAY
    assert kubectl("exec", "p", "--", "echo", "still there") == "still there\n"


@pytest.mark.parametrize(
    "protocol", ["v5.channel.k8s.io", "v4.channel.k8s.io", "v4.base64.channel.k8s.io", "channel.k8s.io", None]
)
async def test_websockets_in_every_version(pod: URL, context: ssl.SSLContext, protocol: str | None) -> None:
    url = str((pod / "exec").with_query(_FAILING)).replace("https:", "wss:")
    protocols = [Subprotocol(protocol)] if protocol else None
    frames: dict[int, bytes] = {}
    async with connect(url, ssl=context, subprotocols=protocols, proxy=None) as connection:
        assert connection.subprotocol == protocol
        async for message in connection:
            if isinstance(message, str):
                frame = bytes([ord(message[0]) - 48]) + base64.b64decode(message[1:])
            else:
                frame = message
            frames[frame[0]] = frames.get(frame[0], b"") + frame[1:]
    assert frames[1] == b"out\n"
    if protocol and protocol.startswith(("v4", "v5")):
        assert json.loads(frames[3])["details"]["causes"] == [{"reason": "ExitCode", "message": "3"}]
    else:
        assert frames[3] == b"command terminated with non-zero exit code: exit status 3"


def test_a_right_to_get_is_none_to_run_commands(kubectl: Program) -> None:
    """With every protocol: WebSockets begin with GET."""
    kubectl("create", "role", "looker", "--verb=get", "--resource=pods,pods/exec")
    kubectl("create", "rolebinding", "looker", "--role=looker", "--user=eve")
    for switch in ("true", "false"):
        said = kubectl("exec", "p", "--as=eve", "--", "true", code=1, KUBECTL_REMOTE_COMMAND_WEBSOCKETS=switch)
        assert 'cannot create resource "pods/exec"' in said


@pytest.mark.parametrize("protocol", [None, "binary.k8s.io", "base64.binary.k8s.io"])
async def test_logs_over_a_websocket(pod: URL, context: ssl.SSLContext, protocol: str | None) -> None:
    protocols = [Subprotocol(protocol)] if protocol is not None else None
    url = str((pod / "log").with_scheme("wss"))
    async with connect(url, ssl=context, subprotocols=protocols, proxy=None) as socket:
        assert socket.subprotocol == protocol
        messages = [message async for message in socket]
    if protocol == "base64.binary.k8s.io":
        messages = [base64.b64decode(message) for message in messages]
    assert b"".join(message for message in messages if isinstance(message, bytes)) == b"one\ntwo\n"


async def test_logs_over_a_websocket_of_another_protocol(pod: URL, context: ssl.SSLContext) -> None:
    with pytest.raises(InvalidStatus) as refused:
        async with connect(
            str((pod / "log").with_scheme("wss")),
            ssl=context,
            subprotocols=[Subprotocol("v4.channel.k8s.io")],
            proxy=None,
        ):
            pass
    assert refused.value.response.status_code == 403


def test_options_of_logs(kubectl: Program) -> None:
    path = f"/api/v1/namespaces/{kubectl.namespace}/pods/p/log?"
    for query, why in (
        ("tailLines=-1", "tailLines: Invalid value: -1: must be greater than or equal to 0"),
        ("sinceSeconds=0&limitBytes=0", "sinceSeconds: Invalid value: 0: must be greater than 0"),
        ("sinceSeconds=1&sinceTime=2030-01-01T00:00:00Z", "at most one of `sinceTime` or `sinceSeconds`"),
        ("tailLines=x", 'strconv.ParseInt: parsing "x": invalid syntax'),
        ("tailLines=99999999999999999999", "value out of range"),
        ("sinceTime=then", 'parsing time "then"'),
        ("container=none", "container none is not valid for pod p"),
    ):
        assert why in kubectl("get", "--raw", path + query, code=1)
    kubectl("run", "waiting", "--image=x")
    assert kubectl("logs", "waiting") == ""


def test_a_node_that_does_not_answer(kubectl: Program) -> None:
    node = ready_node(kubectl, 1, own_address())  # no server listens there
    try:
        run(kubectl, node, "q")
        for switch in ("true", "false"):
            said = kubectl("exec", "q", "--", "true", code=1, KUBECTL_REMOTE_COMMAND_WEBSOCKETS=switch)
            assert "error dialing backend" in said
        assert "/containerLogs/" in kubectl("logs", "q", code=1)
    finally:
        kubectl("delete", "node", node)
