"""A whole installation for the negative tests, and its administrator."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.cloud import Cloud
from tests.security.certificates import Admin


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    """A cluster with its node, and the providers behind the front door."""
    folder = tmp_path_factory.mktemp("cloud") / "data"
    made = Cloud(folder, "kube", "controllers", "arm", "registry", "instances", "node")
    yield made
    made.close()


@pytest.fixture(scope="module")
def admin(cloud: Cloud, tmp_path_factory: pytest.TempPathFactory) -> Admin:
    """The administrator."""
    return Admin(cloud, tmp_path_factory.mktemp("admin"))
