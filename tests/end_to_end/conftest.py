"""The path up to the push: an installation with a registry, an image in it, and principals."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from cumulet.demo.engine import private_settings
from tests.end_to_end.cluster import EXAMPLE, Cluster
from tests.installation import Installation


@pytest.fixture(scope="module")
def cluster(installation: Installation, tmp_path_factory: pytest.TempPathFactory) -> Cluster:
    """The registry `acrdemo2ss` with `app3/acr-app3:v1`, and principals PULL, PUSH and NONE, named after their roles."""
    installation.environment |= private_settings(tmp_path_factory.mktemp("engine"))
    context = tmp_path_factory.mktemp("context")
    shutil.copytree(EXAMPLE / "docker-manifests", context, dirs_exist_ok=True)
    shutil.copy(Path(shutil.which("busybox") or ""), context / "busybox")
    installation.run("buildah", "build", "--quiet", "--tag", "acr-app3:v1", str(context))
    installation.cumulet("group", "create", "aks-rg2")
    registry = installation.cumulet("registry", "create", "acrdemo2ss", "-g", "aks-rg2")
    assert registry["properties"]["loginServer"] == "acrdemo2ss.azurecr.io"
    cluster = Cluster(installation, registry["id"])
    cluster.principal("PULL", "--role", "AcrPull", "--scope", registry["id"])
    cluster.principal("PUSH", "--role", "AcrPush", "--scope", registry["id"])
    cluster.principal("NONE")
    cluster.push("PUSH", "app3/acr-app3:v1")
    return cluster
