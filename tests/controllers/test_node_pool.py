"""`cumulet up` scales the node pool down: it drains a node that leaves, and deletes it with what is left on it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import msgspec
import pytest

from cumulet.common.config import Address, Config, PoolNode, load
from cumulet.common.node_names import pool_node_name
from cumulet.up.pools import scale_down
from tests.controllers.node import StandInNode
from tests.controllers.space import Space
from tests.kube.conftest import Server


@pytest.fixture
def config(server: Server) -> Config:
    """An installation whose one node of the pool leaves."""
    pool = [PoolNode(number=7, address=Address("127.0.0.1", 1), leaves=True)]
    return msgspec.structs.replace(server.cloud.config, node_pool=pool)


@pytest.fixture
def leaving(server: Server, config: Config) -> Iterator[StandInNode]:
    """The kubelet of that node."""
    made = StandInNode(server, pool_node_name(config, config.node_pool[0]), labels={"pool": "leaving"})
    yield made
    made.close()


def test_a_node_that_leaves_is_drained_within_its_budgets(space: Space, leaving: StandInNode, config: Config) -> None:
    pod = {"containers": [{"name": "c", "image": "i"}], "terminationGracePeriodSeconds": 0}
    preferred = {"weight": 100, "preference": {"matchExpressions": [{"key": "pool", "operator": "Exists"}]}}
    prefers = {"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [preferred]}}
    names = {"selector": {"matchLabels": {"app": "web"}}}
    spread = {"metadata": {"labels": {"app": "web"}}, "spec": pod | {"affinity": prefers}}
    space.make("deployments", {"metadata": {"name": "web"}, "spec": {**names, "replicas": 2, "template": spread}})
    only = {"metadata": {"labels": {"app": "d"}}, "spec": pod | {"nodeSelector": {"pool": "leaving"}}}
    daemons = {"selector": {"matchLabels": {"app": "d"}}, "template": only}
    space.make("daemonsets", {"metadata": {"name": "d"}, "spec": daemons})
    space.make("poddisruptionbudgets", {"metadata": {"name": "web"}, "spec": {**names, "minAvailable": 1}})
    space.kubectl("rollout", "status", "deployment/web", "daemonset/d", "--timeout=60s")
    space.kubectl("wait", "pdb/web", "--for=jsonpath={.status.disruptionsAllowed}=1", "--timeout=60s")

    lines: list[str] = []
    remaining = asyncio.run(scale_down(config, lines.append))

    assert remaining.node_pool == load(config.data_dir).node_pool == []
    assert lines == [f"node/{leaving.name} leaves the pool: its pods are evicted", f"node/{leaving.name} deleted"]
    placed = space.kubectl("get", "pods", "-o", "jsonpath={.items[*].spec.nodeName}")
    assert leaving.name not in placed.split()
    assert "NotFound" in space.kubectl("get", "node", leaving.name, code=1)
    space.kubectl("rollout", "status", "deployment/web", "--timeout=60s")


def test_a_node_that_is_gone_already_does_not_stop_the_start(config: Config) -> None:
    assert asyncio.run(scale_down(config, lambda line: None)).node_pool == []
