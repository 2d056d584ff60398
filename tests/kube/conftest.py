"""The API server for the whole suite, as its administrator and as other users see it."""

from __future__ import annotations

import gzip
import http.client
import json
import os
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cumulet.common import tls
from tests.cloud import Answer, Cloud


class Server:
    """The room, called as a member of system:masters."""

    def __init__(self, cloud: Cloud) -> None:
        self.cloud = cloud
        self.tls = tls.client_context(cloud.config.ca_file, *cloud.config.user_files())

    def call(self, method: str, path: str, body: Any = None, **headers: str) -> Answer:
        """Send one request; header names are written with underscores. A watch returns the list of its events."""
        sent = {"Content-Type": "application/json"} if body is not None else {}
        sent |= {name.replace("_", "-").title(): value for name, value in headers.items()}
        if body is not None and not isinstance(body, str | bytes):
            body = json.dumps(body)
        with self.cloud.connections("kube", self.cloud.config.user_files()).take() as connection:
            connection.request(method, path, body, sent)
            response = connection.getresponse()
            raw = response.read()
        headers = dict(response.headers.items())
        if headers.get("Content-Encoding") == "gzip":
            raw = gzip.decompress(raw)
        is_json = headers.get("Content-Type", "").startswith("application/json") and raw
        if is_json and "watch=true" in path and response.status == 200:
            return Answer(response.status, headers, [json.loads(line) for line in raw.splitlines()])
        return Answer(response.status, headers, json.loads(raw) if is_json else raw)

    def namespace(self, name: str) -> str:
        """Create a namespace with its default account, and return the path of its resources."""
        self.make("/api/v1/namespaces", {"metadata": {"name": name}})
        self.make(f"/api/v1/namespaces/{name}/serviceaccounts", {"metadata": {"name": "default"}})
        return f"/api/v1/namespaces/{name}"

    def remove(self, path: str, name: str) -> None:
        """Delete an object, and wait until it is gone."""
        deleted = self.call("DELETE", f"{path}/{name}").body
        if deleted["kind"] == "Status":
            return
        selected = f"fieldSelector=metadata.name={name}&resourceVersion={deleted['metadata']['resourceVersion']}"
        address = self.cloud.config.addresses["kube"]
        connection = http.client.HTTPSConnection(address.host, address.port, context=self.tls, timeout=30)
        try:
            connection.request("GET", f"{path}?watch=true&{selected}")
            response = connection.getresponse()
            while json.loads(response.readline())["type"] != "DELETED":
                pass
        finally:
            connection.close()

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


class Program:
    """kubectl or helm with a cluster and a namespace of its own."""

    def __init__(self, path: str, kubeconfig: Path, namespace: str, home: Path) -> None:
        self.path = path
        self.namespace = namespace
        self.home = home
        # Keep the user's caches and editors out.
        self.environment = {"PATH": os.environ["PATH"], "HOME": str(home), "KUBECONFIG": str(kubeconfig)}

    def __call__(self, *words: str, stdin: str | None = None, code: int = 0, **environment: str) -> str:
        """Run it and return its output; its exit code must be `code`."""
        done = subprocess.run(
            [self.path, "--namespace", self.namespace, *words],
            env=self.environment | environment,
            input=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == code, f"{words} ended with {done.returncode}:\n{done.stdout}"
        return done.stdout

    def start(self, *words: str) -> subprocess.Popen[str]:
        """Start it in the background; the caller ends it."""
        return subprocess.Popen(
            [self.path, "--namespace", self.namespace, *words],
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def json(self, *words: str) -> Any:
        """Return its output, decoded from JSON."""
        return json.loads(self(*words, "-o", "json"))


def programs(name: str) -> list[str]:
    """Return every version on the path: `kubectl`, `kubectl-v30`…"""
    found: dict[str, str] = {}
    for folder in [str(Path(sys.executable).parent), *os.environ["PATH"].split(os.pathsep)]:
        for path in sorted(Path(folder).glob(f"{name}*")):
            if path.name == name or path.name.startswith(f"{name}-v"):
                found.setdefault(path.name, str(path))
    return list(found.values())


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    """The room, with the controllers."""
    made = Cloud(tmp_path_factory.mktemp("cluster") / "data", "kube", "controllers")
    yield made
    made.close()


@pytest.fixture
def kubectl(request: pytest.FixtureRequest, cluster: Cloud, tmp_path: Path) -> Program:
    """kubectl in a namespace of the test's own; in every version on the path where the test is marked so."""
    path = getattr(request, "param", None) or programs("kubectl")[0]
    namespace = f"t{uuid.uuid4().hex[:10]}"
    made = Program(path, cluster.config.kubeconfig_file("admin"), namespace, tmp_path)
    made("create", "namespace", namespace)
    return made
