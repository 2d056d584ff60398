"""The API server for the whole suite, as its administrator and as others see it."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator
from typing import Any

import pytest
from cloud import Answer, Cloud

from cumulet.common import tls


class Server:
    """The room, called as a member of system:masters."""

    def __init__(self, cloud: Cloud) -> None:
        self.cloud = cloud
        self.tls = tls.client_context(cloud.config.ca_file, *cloud.config.certificate_files("kube"))

    def call(self, method: str, path: str, body: Any = None, **headers: str) -> Answer:
        """One request; header names are written with underscores. A watch is answered with the list of its events."""
        sent = {"Content-Type": "application/json"} if body is not None else {}
        sent |= {name.replace("_", "-").title(): value for name, value in headers.items()}
        if body is not None and not isinstance(body, str | bytes):
            body = json.dumps(body)
        address = self.cloud.config.addresses["kube"]
        connection = http.client.HTTPSConnection(address.host, address.port, context=self.tls, timeout=30)
        try:
            connection.request(method, path, body, sent)
            response = connection.getresponse()
            raw = response.read()
        finally:
            connection.close()
        headers = dict(response.headers.items())
        is_json = headers.get("Content-Type", "").startswith("application/json") and raw
        if is_json and "watch=true" in path and response.status == 200:
            return Answer(response.status, headers, [json.loads(line) for line in raw.splitlines()])
        return Answer(response.status, headers, json.loads(raw) if is_json else raw)

    def namespace(self, name: str) -> str:
        """A new namespace with its default account, and the path of what is in it."""
        self.make("/api/v1/namespaces", {"metadata": {"name": name}})
        self.make(f"/api/v1/namespaces/{name}/serviceaccounts", {"metadata": {"name": "default"}})
        return f"/api/v1/namespaces/{name}"

    def make(self, path: str, body: Any) -> Any:
        """Create an object."""
        answer = self.call("POST", path, body)
        assert answer.status == 201, answer.body
        return answer.body


@pytest.fixture(scope="session")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    """The room, running."""
    made = Cloud(tmp_path_factory.mktemp("kube") / "data", "kube")
    yield made
    made.close()


@pytest.fixture(scope="session")
def server(cloud: Cloud) -> Server:
    """The API server."""
    return Server(cloud)
