"""What is read bit by bit, or is no list, takes the full right; a list shows what the caller may read."""

from __future__ import annotations

import json
import ssl
import threading
import uuid
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from cumulet.common import tls
from cumulet.common.entra import Credential
from tests.cloud import Cloud

GROUPS = "providers/Microsoft.ContainerInstance/containerGroups"
SECRET = "a line of somebody's log"


class _Instances(BaseHTTPRequestHandler):
    """Container groups of which there is one, whose log is streamed; it stands where the room of that name does."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        path, _, query = self.path.partition("?")
        if "stream=true" in query or path.endswith("/metrics"):
            self._send(SECRET.encode(), "text/plain", chunked=True)
        elif path.lower().endswith("/logs"):
            self._send(json.dumps({"content": SECRET}).encode(), "application/json")
        elif path.lower().endswith("/containergroups"):
            group = path.partition("/providers/")[0]
            items = [{"id": f"{group}/{GROUPS}/mine", "name": "mine", "location": "eastus"}]
            self._send(json.dumps({"value": items}).encode(), "application/json")
        else:
            self._send(b"{}", "application/json")

    def do_POST(self) -> None:
        self.do_GET()

    def _send(self, body: bytes, kind: str, *, chunked: bool = False) -> None:
        self.send_response(200)
        self.send_header("Content-Type", kind)
        if chunked:
            self.send_header("Transfer-Encoding", "chunked")
        else:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if chunked:
            body = b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body)
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@pytest.fixture(scope="module")
def containers(cloud: Cloud, group: str) -> Iterator[str]:
    """The id of the containers of a container group."""
    address = cloud.config.addresses["instances"]
    server = ThreadingHTTPServer((address.host, address.port), _Instances)
    files: tuple[Path, Path] = cloud.config.certificate_files("instances")
    context: ssl.SSLContext = tls.server_context(*files)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"{group}/{GROUPS}/mine/containers/main"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(scope="module")
def puller(cloud: Cloud, group: str) -> Credential:
    """A principal with a role in the group that reads nothing of container groups."""
    return cloud.principal("puller", AcrPull=group)


@pytest.mark.parametrize(
    "query", ["", "?stream=true", "?stream=true&follow=true", "?watch=true", "?follow=true&tail=1"]
)
def test_a_role_on_the_group_reads_no_log(cloud: Cloud, containers: str, puller: Credential, query: str) -> None:
    for path in (f"{containers}/logs", f"{containers}/LOGS", f"{containers}/logs/"):
        answer = cloud.arm("GET", f"{path}{query}", as_=puller)
        assert (answer.status, answer.code) == (403, "AuthorizationFailed"), path
        assert "Microsoft.ContainerInstance/containerGroups/containers/logs/read".lower() in str(answer.body).lower()


def test_a_role_on_the_group_reads_no_metrics(cloud: Cloud, containers: str, puller: Credential) -> None:
    one = containers.partition("/containers/")[0]
    answer = cloud.arm("GET", f"{one}/providers/Microsoft.Insights/metrics", as_=puller)
    assert (answer.status, answer.code) == (403, "AuthorizationFailed")
    assert "Microsoft.Insights/metrics/read" in str(answer.body)


@pytest.mark.parametrize(
    "path",
    [
        "{subscription}/providers/Microsoft.ContainerInstance/locations/eastus/usages",
        "{subscription}/providers/Microsoft.ContainerInstance/locations/eastus/usageDetails",
        "{subscription}/providers/Microsoft.ContainerInstance/locations/eastus/cachedImages",
        "{group}/providers/Microsoft.Insights/metrics",
        "{containers}/logs",
        "{one}/containers",
        "{registry}/listUsages",
        "{registry}/listCredentials",
        "{registry}/nothing",
    ],
)
def test_what_is_no_list_takes_the_right_itself(
    cloud: Cloud, containers: str, group: str, registry: str, puller: Credential, path: str
) -> None:
    one = containers.partition("/containers/")[0]
    named = {"subscription": cloud.subscription, "group": group, "one": one}
    answer = cloud.arm("GET", path.format(containers=containers, registry=registry, **named), as_=puller)
    assert (answer.status, answer.code) == (403, "AuthorizationFailed")


def test_a_reader_reads_the_log_in_both_forms(cloud: Cloud, containers: str, group: str, registry: str) -> None:
    reader = cloud.principal("reader", Reader=group)
    assert cloud.arm("GET", f"{containers}/logs", as_=reader).body == {"content": SECRET}
    assert cloud.arm("GET", f"{containers}/logs?stream=true&follow=true", as_=reader).body == SECRET.encode()
    one = containers.partition("/containers/")[0]
    metrics = cloud.arm("GET", f"{one}/providers/Microsoft.Insights/metrics", as_=reader)
    assert (metrics.status, metrics.body) == (200, SECRET.encode())
    usages = cloud.arm("GET", f"{registry}/listUsages", as_=reader)
    assert usages.status == 200
    assert {item["name"] for item in usages.body["value"]} >= {"Size", "Webhooks"}


def test_the_rights_to_logs_and_metrics_are_granted_one_by_one(cloud: Cloud, containers: str, group: str) -> None:
    one = containers.partition("/containers/")[0]
    paths = {
        "Microsoft.ContainerInstance/containerGroups/containers/logs/read": f"{containers}/logs?stream=true&follow=true",
        "Microsoft.Insights/metrics/read": f"{one}/providers/Microsoft.Insights/metrics",
    }
    for action, path in paths.items():
        name = str(uuid.uuid4())
        definition = f"{cloud.subscription}/providers/Microsoft.Authorization/roleDefinitions/{name}"
        scopes = [cloud.subscription]
        properties = {"roleName": name, "assignableScopes": scopes, "permissions": [{"actions": [action]}]}
        assert cloud.arm("PUT", definition, {"properties": properties}).status == 201
        who = cloud.principal("one-right", **{name: group})
        statuses = {other: cloud.arm("GET", paths[other], as_=who).status for other in paths}
        assert statuses == {other: 200 if other == action else 403 for other in paths}
        assert path


def test_a_list_shows_only_what_the_caller_may_read_and_is_never_streamed(
    cloud: Cloud, containers: str, group: str, puller: Credential
) -> None:
    for query in ("", "?watch=true&since=0"):
        assert cloud.arm("GET", f"{group}/{GROUPS}{query}", as_=puller).body["value"] == []
    for query in ("?stream=true", "?stream=true&follow=true", "?stream=true&watch=true"):
        answer = cloud.arm("GET", f"{group}/{GROUPS}{query}", as_=puller)
        assert SECRET not in str(answer.body)
    assert len(cloud.arm("GET", f"{group}/{GROUPS}").body["value"]) == 1
    assert containers
