"""Identity with the front door before it, for the whole suite."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.cloud import Cloud
from tests.identity.certificates import Signer


@pytest.fixture(scope="session")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    """The rooms, running, trusted by Microsoft's libraries too."""
    made = Cloud(tmp_path_factory.mktemp("identity") / "data", "arm")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("REQUESTS_CA_BUNDLE", str(made.config.ca_file))
        yield made
    made.close()


@pytest.fixture(scope="session")
def signer() -> Signer:
    """A client's key and self-signed certificate that is valid now."""
    return Signer()
