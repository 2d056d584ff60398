"""A cluster of our API server, scheduler and controllers with a stand-in node, and kubectl to look at it."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cloud import Cloud
from tests.controllers.node import StandInNode
from tests.kube.conftest import Program, Server, programs


class Kubectl(Program):
    """kubectl in a namespace of its own."""

    def apply(self, *objects: dict[str, Any]) -> None:
        """Apply objects."""
        self("apply", "-f", "-", stdin="\n---\n".join(json.dumps(item) for item in objects))

    def wait(self, what: str, *conditions: str) -> None:
        """Wait until each condition of `kubectl wait --for` holds."""
        for condition in conditions:
            self("wait", what, f"--for={condition}", "--timeout=30s")

    def wait_for(self, what: str, path: str, value: object) -> None:
        """Wait until a JSON path has a value."""
        self.wait(what, f"jsonpath={{{path}}}={value}")

    def names(self, *words: str) -> list[str]:
        """The names of what `kubectl get` finds, sorted."""
        return sorted(self("get", *words, "-o", "jsonpath={.items[*].metadata.name}").split())

    def value(self, what: str, path: str) -> str:
        """One value."""
        return self("get", what, "-o", f"jsonpath={{{path}}}")

    def events(self, name: str) -> list[str]:
        """`Reason: message` of the events about an object, in their order."""
        found = self.json("get", "events", f"--field-selector=involvedObject.name={name}")["items"]
        return [f"{event['reason']}: {event['message']}" for event in found]


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    """The rooms, running."""
    made = Cloud(tmp_path_factory.mktemp("controllers") / "data", "kube", "scheduler", "controllers")
    yield made
    made.close()


@pytest.fixture(scope="session")
def server(cluster: Cloud) -> Server:
    """The API server, called directly."""
    return Server(cluster)


@pytest.fixture(scope="session")
def node(server: Server) -> Iterator[StandInNode]:
    """A node on which pods run."""
    made = StandInNode(server, "node-1")
    yield made
    made.close()


@pytest.fixture
def kubectl(cluster: Cloud, node: StandInNode, tmp_path: Path) -> Kubectl:
    """kubectl in a namespace of the test's own."""
    namespace = f"t{uuid.uuid4().hex[:10]}"
    made = Kubectl(programs("kubectl")[0], cluster.config.kubeconfig_file("admin"), namespace, tmp_path)
    made("create", "namespace", namespace)
    return made


def workload(kind: str, name: str, version: str = "apps/v1", life: str = "runs", **spec: Any) -> dict[str, Any]:
    """An object with a pod template."""
    template: dict[str, Any] = {
        "metadata": {"labels": {"app": name}, "annotations": {"life": life}},
        "spec": {"containers": [{"name": "c", "image": "x:1"}], "terminationGracePeriodSeconds": 1},
    }
    if version == "batch/v1":
        template["spec"]["restartPolicy"] = "Never"
        wanted: dict[str, Any] = {"template": template}
    else:
        wanted = {"selector": {"matchLabels": {"app": name}}, "template": template}
    return {"apiVersion": version, "kind": kind, "metadata": {"name": name}, "spec": wanted | spec}
