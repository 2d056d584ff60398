"""API servers behind this one: registered, found, asked, and told who has asked."""

from __future__ import annotations

import base64
import http.client
import json
import ssl
import threading
import uuid
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from cumulet.common.tls import Authority
from tests.cloud import Answer
from tests.kube.conftest import Program, Server, programs
from tests.kube.test_flow_and_audit import as_user

Object = dict[str, Any]

SERVICES = "/apis/apiregistration.k8s.io/v1/apiservices"


class Behind:
    """A server of `things`, with a certificate of an authority of its own for `s` in a namespace."""

    def __init__(self, server: Server, space: str, folder: Path) -> None:
        self.group = f"g{uuid.uuid4().hex[:8]}.example.com"
        self.server = server
        self.namespace = space.rpartition("/")[2]
        self.space = space
        self.asked: list[tuple[str, str, dict[str, str], Object]] = []
        behind = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                length = int(self.headers.get("Content-Length") or 0)
                body = json.loads(self.rfile.read(length) or b"{}")
                peer = dict(item for names in self.connection.getpeercert()["subject"] for item in names)
                headers = {**self.headers, "peer": peer["commonName"]}
                headers["groups"] = ",".join(self.headers.get_all("X-Remote-Group") or ())
                behind.asked.append((self.command, self.path, headers, body))
                found = json.dumps(behind.answer(self.path)).encode()
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(found)))
                self.end_headers()
                self.wfile.write(found)

            def do_POST(self) -> None:
                self.do_GET()

            def log_message(self, *_: Any) -> None:
                """Not to the terminal."""

        authority = Authority.open(folder / "ca.crt", folder / "ca.key")
        for suffix, pem in zip(("crt", "key"), authority.issue("s", hosts=[f"s.{self.namespace}.svc"]), strict=True):
            (folder / f"s.{suffix}").write_bytes(pem)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(folder / "s.crt", folder / "s.key")
        context.load_verify_locations(server.cloud.config.ca_file)
        context.verify_mode = ssl.CERT_REQUIRED
        self.bundle = base64.b64encode((folder / "ca.crt").read_bytes()).decode()
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._http.daemon_threads = True
        self._http.socket = context.wrap_socket(self._http.socket, server_side=True)
        self._thread = threading.Thread(target=self._http.serve_forever)
        self._thread.start()

    def close(self) -> None:
        self.server.call("DELETE", f"{SERVICES}/v1.{self.group}")
        self._http.shutdown()
        self._thread.join()
        self._http.server_close()

    def answer(self, path: str) -> Object:
        if path.endswith("/v1"):
            thing = {
                "name": "things",
                "singularName": "thing",
                "namespaced": True,
                "kind": "Thing",
                "verbs": ["get", "list"],
            }
            part = {**thing, "name": "things/size", "singularName": "", "verbs": ["get"]}
            resources = [{**thing, "shortNames": ["th"]}, part]
            return {
                "kind": "APIResourceList",
                "apiVersion": "v1",
                "groupVersion": f"{self.group}/v1",
                "resources": resources,
            }
        item = {"metadata": {"name": "one", "namespace": self.namespace}}
        version = {"apiVersion": f"{self.group}/v1"}
        return {**version, "kind": "ThingList", "metadata": {}, "items": [{**version, "kind": "Thing", **item}]}

    def register(self, **spec: Any) -> Answer:
        service = {"namespace": self.namespace, "name": "s", "port": 443}
        priorities = {"groupPriorityMinimum": 100, "versionPriority": 10}
        spec = {
            "group": self.group,
            "version": "v1",
            "service": service,
            "caBundle": self.bundle,
            **priorities,
            **spec,
        }
        body = {"metadata": {"name": f"v1.{self.group}"}, "spec": spec}
        return self.server.call("POST", SERVICES, {key: value for key, value in body.items() if value is not None})

    def serve(self) -> None:
        """Make the service with an end point."""
        ports = [{"name": "https", "port": 443}]
        self.server.make(f"{self.space}/services", {"metadata": {"name": "s"}, "spec": {"ports": ports}})
        slice_ = {
            "metadata": {"name": "s", "labels": {"kubernetes.io/service-name": "s"}},
            "addressType": "IPv4",
            "endpoints": [{"addresses": ["127.0.0.1"]}],
            "ports": [{"name": "https", "port": self._http.server_port}],
        }
        self.server.make(f"/apis/discovery.k8s.io/v1/namespaces/{self.namespace}/endpointslices", slice_)

    def condition(self, reason: str, text: str = "") -> Object:
        """The condition, once it has this reason and its message this text."""
        query = f"watch=true&timeoutSeconds=10&fieldSelector=metadata.name=v1.{self.group}"
        connection = self.server.cloud.config.addresses["kube"]
        client = http.client.HTTPSConnection(connection.host, connection.port, context=self.server.tls, timeout=15)
        try:
            client.request("GET", f"{SERVICES}?{query}")
            response = client.getresponse()
            while line := response.readline():
                for found in (json.loads(line)["object"].get("status") or {}).get("conditions") or ():
                    if found["reason"] == reason and text in found["message"]:
                        return dict(found)
        finally:
            client.close()
        raise AssertionError(f"it never came to {reason}")


@pytest.fixture
def behind(server: Server, tmp_path: Path) -> Iterator[Behind]:
    """A server that is not registered yet."""
    made = Behind(server, server.namespace(f"b{uuid.uuid4().hex[:8]}"), tmp_path)
    yield made
    made.close()


def test_a_server_is_found_and_asked(server: Server, behind: Behind) -> None:
    assert behind.register().status == 201
    things = f"/apis/{behind.group}/v1/namespaces/{behind.namespace}/things"
    missing = behind.condition("ServiceNotFound")
    assert (missing["status"], missing["message"]) == (
        "False",
        f'service/s in "{behind.namespace}" is not present',
    )
    answer = server.call("GET", things)
    assert (answer.status, answer.body["message"]) == (503, "service unavailable")
    behind.serve()
    assert behind.condition("Passed")["status"] == "True"
    behind.asked.clear()
    answer = server.call("GET", f"{things}?limit=5", x_remote_user="root", authorization="")
    assert (answer.status, answer.body["items"][0]["metadata"]["name"]) == (200, "one")
    (method, path, headers, _), *_ = [item for item in behind.asked if "limit" in item[1]]
    assert (method, path) == ("GET", f"{things}?limit=5")
    assert (headers["X-Remote-User"], headers["peer"]) == ("kube-apiserver", "kube-apiserver")
    assert "system:masters" in headers["groups"].split(",")
    server.call("POST", f"{things}/one/size/of/it", {"a": 1})
    assert behind.asked[-1][3] == {"a": 1}
    # Who may not is not passed on.
    behind.asked.clear()
    refused = as_user(server, "stranger", "GET", things)
    assert refused.status == 403
    assert f'cannot list resource "things" in API group "{behind.group}"' in refused.body["message"]
    assert not [item for item in behind.asked if item[1] == things]


def test_discovery(server: Server, behind: Behind, tmp_path: Path) -> None:
    kubeconfig = server.cloud.config.kubeconfig_file("admin")
    kubectl = Program(programs("kubectl")[0], kubeconfig, behind.namespace, tmp_path)
    behind.serve()
    behind.register()
    behind.condition("Passed")
    assert server.call("GET", f"/apis/{behind.group}").body["versions"][0]["version"] == "v1"
    assert behind.group in [group["name"] for group in server.call("GET", "/apis").body["groups"]]
    assert server.call("GET", f"/apis/{behind.group}/v1").body["resources"][0]["name"] == "things"
    accept = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
    items = server.call("GET", "/apis", accept=accept).body["items"]
    (version,) = next(item for item in items if item["metadata"]["name"] == behind.group)["versions"]
    assert (version["freshness"], version["resources"][0]["subresources"][0]["subresource"]) == ("Current", "size")
    assert f"things.{behind.group}" in kubectl("api-resources", "-o", "name").split()
    assert kubectl("get", "th", "-o", "name").split() == [f"thing.{behind.group}/one"]
    row = kubectl("get", "apiservices", f"v1.{behind.group}", "--no-headers").split()
    assert row[:3] == [f"v1.{behind.group}", f"{behind.namespace}/s", "True"]


def test_a_server_must_prove_who_it_is(server: Server, behind: Behind) -> None:
    behind.serve()
    authority = base64.b64encode(server.cloud.config.ca_file.read_bytes()).decode()
    assert behind.register(caBundle=authority).status == 201
    behind.condition("FailedDiscoveryCheck", "certificate")
    path = f"{SERVICES}/v1.{behind.group}"
    patch = {"spec": {"caBundle": None, "insecureSkipTLSVerify": True}}
    assert server.call("PATCH", path, patch, content_type="application/merge-patch+json").status == 200
    # Whoever need not prove it must not be of this machine.
    behind.condition("FailedDiscoveryCheck", "address not allowed")
    assert not behind.asked


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        ({"groupPriorityMinimum": 0}, "spec.groupPriorityMinimum"),
        ({"versionPriority": 1001}, "spec.versionPriority"),
        ({"version": "v2"}, "metadata.name"),
        ({"insecureSkipTLSVerify": True}, "spec.insecureSkipTLSVerify"),
        ({"service": {"name": "s"}}, "spec.service.namespace"),
    ],
)
def test_registrations_that_are_refused(behind: Behind, spec: Object, field: str) -> None:
    answer = behind.register(**spec)
    assert answer.status == 422
    assert field in [cause["field"] for cause in answer.body["details"]["causes"]]


def test_what_servers_behind_read(server: Server) -> None:
    data = server.call("GET", "/api/v1/namespaces/kube-system/configmaps/extension-apiserver-authentication").body[
        "data"
    ]
    assert json.loads(data["requestheader-allowed-names"]) == ["kube-apiserver"]
    assert data["requestheader-client-ca-file"].startswith("-----BEGIN CERTIFICATE")
