"""What several suites share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from cumulet.common.config import DEFAULT_PORTS, Config
from cumulet.up.install import install
from tests.installation import Installation

#: Folders whose tests run containers, which takes long.
LONG = ("cases", "end_to_end", "instances", "up")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What takes longest begins first, so that two workers end together."""
    items.sort(key=lambda item: item.path.parent.name in LONG, reverse=True)


@pytest.fixture
def config(tmp_path: Path) -> Config:
    """The settings, certificates and principals of a new installation, with nothing running."""
    return install(tmp_path / "data", ports=dict.fromkeys(DEFAULT_PORTS, 0))


@pytest.fixture(scope="module")
def installation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """A running installation that a module's tests share, stopped at the end."""
    made = Installation(tmp_path_factory.mktemp("installation") / "data")
    made.up()
    try:
        yield made
    finally:
        made.down()
