"""The part of the room that watches policies, against an API server."""

from __future__ import annotations

import asyncio
import os

import pytest

from cumulet.common.kubernetes import Client
from cumulet.common.kubernetes.component import run_informers
from cumulet.common.kubernetes.kubeconfig import load_kubeconfig
from cumulet.common.tasks import task_set
from cumulet.network.cluster import Cluster
from cumulet.network.policy import controller
from tests.cloud import Cloud
from tests.controllers.space import Space


async def test_a_policy_that_cannot_be_enforced_says_so(
    space: Space, control_plane: Cloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    space.make("networkpolicies", {"metadata": {"name": "deny"}, "spec": {"podSelector": {}}})
    kubeconfig = control_plane.config.kubeconfig_file("network")
    async with Client(load_kubeconfig(kubeconfig), user_agent="test") as client, task_set() as tasks:
        cluster = Cluster.watched_by(client, control_plane.config, tasks)
        tasks.start(cluster.events.run())
        await run_informers(cluster.informers, tasks, asyncio.Event())
        monkeypatch.setattr(os, "geteuid", lambda: 1000)
        async with controller.running(cluster):
            await cluster.events.flush()
    assert [told.partition(":")[0] for told in space.events("deny")] == ["PolicyNotEnforced"]
