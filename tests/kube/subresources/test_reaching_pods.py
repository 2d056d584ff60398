"""Access to pods: port-forward, the proxies, ephemeral containers, resizing."""

from __future__ import annotations

import http.client
import json
import re
import socket
import ssl
import threading
import uuid
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.request import urlopen

import pytest
from websockets.asyncio.client import connect
from websockets.typing import Subprotocol

from cumulet.common import tls
from cumulet.common.egress import Exempt
from tests.cloud import Cloud
from tests.kube.conftest import Program, Server, programs
from tests.kube.kubelet import StandInKubelet

every_kubectl = pytest.mark.parametrize("kubectl", programs("kubectl"), indirect=True)


class _Site(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        body = (
            b"x" * 300_000 if self.path == "/large" else f"{self.path} {self.headers.get('Authorization')}".encode()
        )
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("X-Site", "yes")
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(202)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Do not log to the terminal."""


@pytest.fixture(scope="module")
def site() -> Iterator[int]:
    """The port of a web site."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Site)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server.server_port
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(scope="module")
def kubelet(cluster: Cloud) -> Iterator[StandInKubelet]:
    """A kubelet."""
    made = StandInKubelet(cluster.config)
    yield made
    made.close()


@pytest.fixture
def pod(cluster: Cloud, kubectl: Program, kubelet: StandInKubelet) -> Iterator[str]:
    """A pod that runs on a node with that kubelet."""
    node = f"n{uuid.uuid4().hex[:8]}"
    kubectl("create", "-f", "-", stdin=json.dumps({"apiVersion": "v1", "kind": "Node", "metadata": {"name": node}}))
    status = {
        "addresses": [{"type": "InternalIP", "address": "127.0.0.1"}],
        "daemonEndpoints": {"kubeletEndpoint": {"Port": kubelet.port}},
    }
    kubectl("patch", "node", node, "--subresource=status", "-p", json.dumps({"status": status}))
    container = {"name": "c", "image": "x", "resources": {"requests": {"cpu": "1"}}}
    spec = {"nodeName": node, "containers": [container], "terminationGracePeriodSeconds": 0}
    made = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": spec}
    kubectl("create", "-f", "-", stdin=json.dumps(made))
    running = {"status": {"phase": "Running", "podIP": "127.0.0.1"}}
    kubectl("patch", "pod", "p", "--subresource=status", "-p", json.dumps(running))
    yield "p"
    kubectl("delete", "pod", "p", "--force")
    kubectl("delete", "node", node)


class Forwarded:
    """`kubectl port-forward` while the context is open."""

    def __init__(self, kubectl: Program, pod: str, port: int) -> None:
        self._process = kubectl.start("port-forward", pod, f":{port}")

    def __enter__(self) -> int:
        assert self._process.stdout is not None
        said = self._process.stdout.readline()
        found = re.search(r"127\.0\.0\.1:(\d+) ->", said)
        assert found, said
        return int(found[1])

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        assert self._process.stdout is not None
        self.said = self._process.stdout.read()
        self._process.stdout.close()
        self._process.wait()


@every_kubectl
def test_port_forward(kubectl: Program, pod: str, site: int) -> None:
    with Forwarded(kubectl, pod, site) as port:
        for _ in range(3):
            assert urlopen(f"http://127.0.0.1:{port}/hello").read() == b"/hello None"
        assert len(urlopen(f"http://127.0.0.1:{port}/large").read()) == 300_000
        # Concurrent connections do not disturb one another.
        sockets = [socket.create_connection(("127.0.0.1", port)) for _ in range(5)]
        for index, one in enumerate(sockets):
            one.sendall(b"POST / HTTP/1.1\r\nContent-Length: 400000\r\nConnection: close\r\n\r\n")
            one.sendall(bytes([97 + index]) * 400_000)
        for index, one in enumerate(sockets):
            with one, one.makefile("rb") as file:
                assert file.read().endswith(bytes([97 + index]) * 400_000)


@every_kubectl
def test_port_forward_to_a_closed_port(kubectl: Program, pod: str) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        number = free.getsockname()[1]
    forwarded = Forwarded(kubectl, pod, number)
    with forwarded as port, socket.create_connection(("127.0.0.1", port)) as connection:
        connection.settimeout(10)
        assert connection.recv(1) == b""
    assert f"error forwarding port {number} to pod" in forwarded.said


@every_kubectl
async def test_port_forward_over_channels(kubectl: Program, cluster: Cloud, pod: str, site: int) -> None:
    """With the protocol of the Python clients."""
    config = cluster.config
    context: ssl.SSLContext = tls.client_context(config.ca_file, *config.user_files())
    address = config.url("kube").replace("https://", "wss://")
    url = f"{address}/api/v1/namespaces/{kubectl.namespace}/pods/{pod}/portforward?ports={site}"
    # The client's threads write and read a TLS connection at the same time, which loses data.
    async with connect(url, ssl=context, subprotocols=[Subprotocol("v4.channel.k8s.io")], proxy=None) as connection:
        begun = [await connection.recv() for _ in range(2)]
        assert begun == [bytes([channel]) + site.to_bytes(2, "little") for channel in (0, 1)]
        await connection.send(b"\x01what comes on the channel of errors is nothing for the pod")
        await connection.send(b"\x00GET /there HTTP/1.1\r\nConnection: close\r\n\r\n")
        received = b""
        async for data in connection:
            if isinstance(data, bytes) and data[:1] == b"\x00":
                received += data[1:]
        assert received.endswith(b"/there None")


@every_kubectl
def test_debugging_with_an_ephemeral_container(kubectl: Program, pod: str) -> None:
    kubectl("debug", pod, "--image=busybox", "--container=look", "--profile=general", "--attach=false", "--", "sh")
    made = kubectl.json("get", "pod", pod)
    (container,) = made["spec"]["ephemeralContainers"]
    assert (container["name"], container["image"]) == ("look", "busybox")
    assert container["terminationMessagePath"] == "/dev/termination-log"
    assert made["metadata"]["generation"] == 2
    changed = {"spec": {"ephemeralContainers": [{"name": "look", "image": "other"}]}}
    refused = kubectl("patch", "pod", pod, "--subresource=ephemeralcontainers", "-p", json.dumps(changed), code=1)
    assert 'existing ephemeral containers "look" may not be changed' in refused
    path = f"/api/v1/namespaces/{kubectl.namespace}/pods/{pod}/ephemeralcontainers"
    del made["spec"]["ephemeralContainers"]
    refused = kubectl("replace", "--raw", path, "-f", "-", stdin=json.dumps(made), code=1)
    assert "may not be removed" in refused


@every_kubectl
def test_resizing(kubectl: Program, pod: str) -> None:
    wanted = {"spec": {"containers": [{"name": "c", "resources": {"requests": {"cpu": "2"}}, "image": "other"}]}}
    kubectl("patch", "pod", pod, "--subresource=resize", "-p", json.dumps(wanted))
    (container,) = kubectl.json("get", "pod", pod)["spec"]["containers"]
    assert container["resources"]["requests"]["cpu"] == "2"
    assert container["image"] == "x"


@every_kubectl
def test_a_node_is_reached_through_the_proxy(kubectl: Program, pod: str) -> None:
    node = kubectl("get", "pod", pod, "-o", "jsonpath={.spec.nodeName}")
    path = f"/api/v1/nodes/{node}/proxy/containerLogs/{kubectl.namespace}/{pod}/c"
    assert kubectl("get", "--raw", path) == "one\ntwo\n"


@every_kubectl
def test_top(kubectl: Program, pod: str, kubelet: StandInKubelet) -> None:
    moment = "2026-11-25T00:00:00Z"
    cpu = {"time": moment, "usageNanoCores": 250_000_000}
    memory = {"time": moment, "workingSetBytes": 64 * 1024 * 1024}
    container = {"name": "c", "cpu": cpu, "memory": memory}
    reference = {"name": pod, "namespace": kubectl.namespace, "uid": "x"}
    node = kubectl("get", "pod", pod, "-o", "jsonpath={.spec.nodeName}")
    kubelet.summary = {
        "node": {"nodeName": node, "cpu": cpu, "memory": memory},
        "pods": [{"podRef": reference, "containers": [container]}],
    }
    assert kubectl("top", "pod", "--no-headers").split() == [pod, "250m", "64Mi"]
    assert kubectl("top", "pod", pod, "--containers", "--no-headers").split() == [pod, "c", "250m", "64Mi"]
    assert kubectl("top", "node", node, "--no-headers").split()[:2] == [node, "250m"]
    assert kubectl("get", "podmetrics", "--no-headers").split() == [pod, "250m", "64Mi", "10s"]
    assert "No resources found" in kubectl("top", "pod", "-l", "a=b")
    assert "not found" in kubectl("top", "pod", "none", code=1)


def test_services_and_pods_are_not_proxied_to_this_machine(server: Server, site: int) -> None:
    name = f"p{uuid.uuid4().hex[:8]}"
    space = server.namespace(name)
    spec = {"nodeName": "none", "containers": [{"name": "c", "image": "x"}]}
    server.make(f"{space}/pods", {"metadata": {"name": "p"}, "spec": spec})
    merge = {"content_type": "application/merge-patch+json"}
    answer = server.call("GET", f"{space}/pods/p:{site}/proxy/")
    assert answer.status == 503
    for address in ("127.0.0.1", "169.254.169.254", "0.0.0.0"):
        status = {"status": {"podIP": address, "phase": "Running"}}
        assert server.call("PATCH", f"{space}/pods/p/status", status, **merge).status == 200
        answer = server.call("GET", f"{space}/pods/p:{site}/proxy/")
        assert (answer.status, answer.body["message"]) == (400, "address not allowed")
    server.make(f"{space}/services", {"metadata": {"name": "s"}, "spec": {"ports": [{"port": 80}]}})
    answer = server.call("GET", f"{space}/services/s/proxy/")
    assert (answer.status, answer.body["message"]) == (503, 'no endpoints available for service "s"')
    slice_ = {
        "metadata": {"name": "s", "labels": {"kubernetes.io/service-name": "s"}},
        "addressType": "IPv4",
        "endpoints": [{"addresses": ["127.0.0.1"]}],
        "ports": [{"port": site}],
    }
    server.make(f"/apis/discovery.k8s.io/v1/namespaces/{name}/endpointslices", slice_)
    answer = server.call("GET", f"{space}/services/s/proxy/")
    assert (answer.status, answer.body["message"]) == (400, "address not allowed")
    assert server.call("GET", f"{space}/services/none/proxy/").status == 404
    assert server.call("GET", f"{space}/services/a:b:c:d/proxy/").status == 400


def test_the_path_after_proxy_is_forwarded_unchanged(server: Server, site: int) -> None:
    space = server.namespace(f"p{uuid.uuid4().hex[:8]}")
    for name in ("proxy", "proxy-1"):
        server.make(
            f"{space}/pods", {"metadata": {"name": name}, "spec": {"containers": [{"name": "c", "image": "x"}]}}
        )
        status = {"status": {"podIP": "127.0.0.1", "phase": "Running"}}
        patched = server.call(
            "PATCH", f"{space}/pods/{name}/status", status, content_type="application/merge-patch+json"
        )
        assert patched.status == 200
    with server.cloud.changed("kube", allow_egress=[Exempt("127.0.0.1")]):
        for name in ("proxy", "proxy-1"):
            for path, seen in (
                ("", "/"),
                ("/a%2Fb", "/a%2Fb"),
                ("/x?a=%20b%26c", "/x?a=%20b%26c"),
                ("/z//y/", "/z//y/"),
            ):
                answer = server.call("GET", f"{space}/pods/{name}:{site}/proxy{path}")
                assert (answer.status, answer.body) == (200, f"{seen} None".encode())


class _Once:
    """A pod that answers one connection with fixed bytes, and keeps the request."""

    def __init__(self, answer: bytes) -> None:
        self._answer = answer
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.request = b""
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        with self._listener, self._listener.accept()[0] as connection:
            while not self.request.endswith(b"\r\n\r\n"):
                self.request += connection.recv(4096)
            connection.sendall(self._answer)

    def join(self) -> None:
        self._thread.join()


def test_answers_that_break_off(server: Server) -> None:
    space = server.namespace(f"p{uuid.uuid4().hex[:8]}")
    server.make(f"{space}/pods", {"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "x"}]}})
    status = {"status": {"podIP": "127.0.0.1", "phase": "Running"}}
    server.call("PATCH", f"{space}/pods/p/status", status, content_type="application/merge-patch+json")
    with server.cloud.changed("kube", allow_egress=[Exempt("127.0.0.1")]):
        pod = _Once(b"nothing that is HTTP\r\n\r\n")
        answer = server.call("GET", f"{space}/pods/p:{pod.port}/proxy/")
        pod.join()
        assert answer.status == 503
        assert answer.body["message"].startswith("error trying to reach service")
        pod = _Once(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nabc")
        with pytest.raises((http.client.HTTPException, ConnectionError)):
            server.call("GET", f"{space}/pods/p:{pod.port}/proxy/")
        pod.join()
        # The proxy adds no Accept header of its own.
        pod = _Once(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nhi")
        address = server.cloud.config.addresses["kube"]
        with server.tls.wrap_socket(
            socket.create_connection((address.host, address.port)), server_hostname="localhost"
        ) as client:
            path = f"{space}/pods/p:{pod.port}/proxy/"
            client.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
            assert client.recv(65536).startswith(b"HTTP/1.1 200")
        pod.join()
        names = {line.partition(b":")[0].lower() for line in pod.request.splitlines()[1:] if line}
        assert names == {b"host", b"x-forwarded-for", b"x-forwarded-uri", b"x-forwarded-proto"}


def test_a_port_of_a_pod_names_no_other_machine(server: Server) -> None:
    space = server.namespace(f"p{uuid.uuid4().hex[:8]}")
    server.make(f"{space}/pods", {"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "x"}]}})
    status = {"status": {"podIP": "10.1.2.3", "phase": "Running"}}
    server.call("PATCH", f"{space}/pods/p/status", status, content_type="application/merge-patch+json")
    for port in ("1@127.0.0.1", "1@169.254.169.254", "http", "0", "-1", "%31%40127.0.0.1"):
        answer = server.call("GET", f"{space}/pods/p:{port}/proxy/")
        assert answer.status == 400
        assert "invalid pod request" in answer.body["message"]
