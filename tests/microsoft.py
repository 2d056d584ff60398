"""Microsoft's own clients, logged in as one of our principals."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import TypeVar

from azure.identity import ClientSecretCredential

from cumulet.common.entra import ARM_AUDIENCE, Credential
from tests.cloud import Cloud

C = TypeVar("C")


def log_in(cloud: Cloud, who: Credential | None = None) -> ClientSecretCredential:
    """The owner's credential, or another's."""
    who = who or cloud.owner
    return ClientSecretCredential(
        who.tenant_id,
        who.client_id,
        who.client_secret,
        authority=cloud.config.url("identity"),
        disable_instance_discovery=True,
    )


@contextmanager
def management(kind: Callable[..., AbstractContextManager[C]], cloud: Cloud) -> Iterator[C]:
    """A management client (`azure-mgmt-…`) of some kind, as the owner."""
    with (
        log_in(cloud) as credential,
        kind(
            credential,
            cloud.config.subscription_id,
            base_url=cloud.config.url("arm"),
            credential_scopes=[f"{ARM_AUDIENCE}/.default"],
        ) as client,
    ):
        yield client
