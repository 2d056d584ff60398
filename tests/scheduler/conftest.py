"""The scheduler with our API server, and nodes that are objects only: nothing runs on them."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.cloud import Cloud
from tests.controllers.space import Object, Space
from tests.kube.conftest import Program, Server, programs

MakeNode = Callable[..., str]


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    """The rooms, running."""
    made = Cloud(tmp_path_factory.mktemp("scheduler") / "data", "kube", "scheduler")
    yield made
    made.close()


@pytest.fixture
def space(cluster: Cloud, tmp_path: Path) -> Space:
    """A namespace of the test's own."""
    server = Server(cluster)
    name = f"t{uuid.uuid4().hex[:10]}"
    server.namespace(name)
    return Space(server, Program(programs("kubectl")[0], cluster.config.kubeconfig_file("admin"), name, tmp_path))


@pytest.fixture
def node(space: Space) -> Iterator[MakeNode]:
    """Makes nodes that are gone after the test, together with all pods on them."""
    made: list[str] = []

    def make(
        name: str = "n1", labels: dict[str, str] | None = None, spec: Object | None = None, **allocatable: str
    ) -> str:
        labels = {"kubernetes.io/hostname": name, **(labels or {})}
        ready = {"key": "node.kubernetes.io/not-ready", "effect": "NoSchedule"}
        space.make("nodes", {"metadata": {"name": name, "labels": labels}, "spec": spec or {}})
        has = {"cpu": "4", "memory": "8Gi", "pods": "110"} | allocatable
        conditions = [{"type": "Ready", "status": "True", "lastHeartbeatTime": "2036-01-01T00:00:00Z"}]
        space.status("nodes", name, allocatable=has, capacity=has, conditions=conditions)
        taints = space.get("nodes", name)["spec"].get("taints", [])
        left = [taint for taint in taints if taint["key"] != ready["key"]]
        space.patch("nodes", name, {"spec": {"taints": left or None}}, kind="merge")
        made.append(name)
        return name

    yield make
    for pod in space.names("pods"):
        space.delete("pods", pod, gracePeriodSeconds=0)
    for name in made:
        space.delete("nodes", name)


def pod(name: str, labels: dict[str, str] | None = None, cpu: str = "", **spec: object) -> Object:
    """A pod with one container."""
    container: Object = {"name": "c", "image": "x"}
    if cpu:
        container["resources"] = {"requests": {"cpu": cpu}}
    return {"metadata": {"name": name, "labels": labels or {}}, "spec": {"containers": [container]} | spec}


def place(space: Space, name: str) -> str:
    """The node that a pod gets."""
    found = space.wait("pods", name, lambda item: item["spec"].get("nodeName"))
    node: str = found["spec"]["nodeName"]
    return node
