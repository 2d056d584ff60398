"""The front door with identity and a resource provider, for the whole suite."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.cloud import Cloud


@pytest.fixture(scope="session")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    """The running rooms, which Microsoft's libraries trust."""
    made = Cloud(tmp_path_factory.mktemp("arm") / "data", "arm", "registry")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("REQUESTS_CA_BUNDLE", str(made.config.ca_file))
        yield made
    made.close()
