"""The generators of the files that are recorded from a cluster make the same files of this API server."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from cumulet.common.kubernetes import Client, load_kubeconfig
from tests.kube.conftest import Server

_SCRIPT = Path(__file__).parents[3] / "scripts" / "record_cluster.py"
#: Roles that this project adds to those of Kubernetes.
_ADDED = {"system:cloud-controller-manager", "virtual-kubelet", "cumulet:controllers"}


@pytest.fixture(scope="module")
def generator() -> Iterator[ModuleType]:
    spec = importlib.util.spec_from_file_location("record_cluster", _SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


async def test_roles(generator: ModuleType, server: Server) -> None:
    async with Client(load_kubeconfig(server.cloud.config.kubeconfig_file("admin")), user_agent="test") as client:
        recorded = [role for role in await generator.roles(client) if role["metadata"]["name"] not in _ADDED]
    assert generator.roles_text(recorded) == generator.ROLES.read_text()


async def test_descriptions_of_columns(generator: ModuleType, server: Server) -> None:
    async with Client(load_kubeconfig(server.cloud.config.kubeconfig_file("admin")), user_agent="test") as client:
        recorded = await generator.descriptions(client)
    assert generator.descriptions_text(recorded) == generator.DESCRIPTIONS.read_text()
