"""A room alone, started as a user starts it, in the cluster of a kubeconfig."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cloud import Cloud
from tests.controllers.space import Space, workload
from tests.scheduler.conftest import MakeNode, place


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    """An API server and nothing beside it."""
    made = Cloud(tmp_path_factory.mktemp("alone") / "data", "kube")
    yield made
    made.close()


def test_scheduler_and_controllers(space: Space, node: MakeNode, cluster: Cloud, tmp_path: Path) -> None:
    started = []
    for room in ("scheduler", "controllers"):
        kubeconfig = str(cluster.config.kubeconfig_file("scheduler" if room == "scheduler" else "controllers"))
        command = ["cumulet", "--data-dir", str(tmp_path / room), room, "--kubeconfig", kubeconfig, "--port", "0"]
        environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
        started.append(
            subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        )
    try:
        for process, room in zip(started, ("scheduler", "controllers"), strict=True):
            assert process.stdout is not None
            assert process.stdout.readline().startswith(f"{room} https://127.0.0.1:")
        space.make("deployments", workload("web", replicas=1))
        pod = space.wait_any("pods")["metadata"]["name"]
        node()
        assert place(space, pod) == "n1"
    finally:
        for process in started:
            process.terminate()
            process.communicate()
    assert [process.returncode for process in started] == [0, 0]


def test_a_kubeconfig_that_cannot_be_used(tmp_path: Path) -> None:
    (tmp_path / "config").write_text("clusters: []\n")
    command = [str(Path(sys.executable).with_name("cumulet")), "--data-dir", str(tmp_path / "data"), "scheduler"]
    done = subprocess.run(
        [*command, "--kubeconfig", str(tmp_path / "config")], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 1
    assert done.stderr.startswith(f"ERROR: the kubeconfig {tmp_path / 'config'} cannot be used: KeyError")
