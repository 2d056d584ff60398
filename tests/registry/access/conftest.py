"""The service principal of the tests of logins."""

from __future__ import annotations

import pytest

from cumulet.common.entra import Credential
from tests.cloud import Cloud
from tests.registry.login_server import AcrRegistry


@pytest.fixture(scope="module")
def puller(cloud: Cloud, acr: AcrRegistry) -> Credential:
    """A service principal with AcrPull."""
    return cloud.principal("puller", AcrPull=acr.id)
