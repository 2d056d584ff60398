"""The logins of a group at registries, and the check of its images before it is created, as ACI makes it.

A managed identity logs in as `az acr login` does: its Entra token is exchanged for a refresh token of the registry. An Entra
token goes to login servers of this cloud only, as another server could use it.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable

import aiohttp
import msgspec

from cumulet.common import bounded
from cumulet.common.arm import ArmError
from cumulet.common.egress import https_only
from cumulet.common.image_reference import parse
from cumulet.instances.groups.identities import Identities, IdentityError
from cumulet.instances.groups.provisioning import inaccessible
from cumulet.instances.groups.pull_credentials import credentials_for
from cumulet.instances.groups.pull_messages import Failure, explain
from cumulet.instances.images.errors import OF_CREDENTIALS, Fault, PullError
from cumulet.instances.images.registry import Login, RegistryClient
from cumulet.instances.model.envelope import GroupIdentity, client_of
from cumulet.instances.model.properties import Credential, GroupProperties
from cumulet.instances.store.records import GroupRecord

_LIMIT = 64 * 1024
#: The user name of a refresh token, in place of a password (ACR).
_REFRESH_TOKEN = "00000000-0000-0000-0000-000000000000"  # noqa: S105
#: Seconds in which the registries must have answered a check.
_PATIENCE = 20.0


class _Exchanged(msgspec.Struct):
    refresh_token: str = ""


class Logins:
    """Logs groups in. `session` reaches registries, and `is_login_server` recognizes those of this cloud."""

    def __init__(
        self,
        session: aiohttp.ClientSession,
        identities: Identities,
        is_login_server: Callable[[str], bool],
    ) -> None:
        self._session = session
        self._identities = identities
        self._is_login_server = is_login_server

    async def login(self, credential: Credential | None, identity: GroupIdentity | None) -> Login | None:
        """Return the login of a credential, `None` without one. Raises `PullError`."""
        if credential is None:
            return None
        if credential.identity is None:
            return Login(credential.username, credential.password or "")
        client = client_of(credential.identity, identity)
        if client is None:
            raise PullError(
                f"the identity '{credential.identity}' is not an identity of the container group", Fault.UNAUTHORIZED
            )
        if not self._is_login_server(credential.server):
            raise PullError(
                f"{credential.server} is no login server of this cloud, and gets no token of an identity",
                Fault.UNAUTHORIZED,
            )
        try:
            entra = await self._identities.token(client)
            return Login(_REFRESH_TOKEN, await self._exchange(credential.server, entra.text))
        except (IdentityError, aiohttp.ClientError, TimeoutError) as error:
            raise PullError(
                f"failed to authorize: the identity '{credential.identity}' got no token: {error}", Fault.UNAUTHORIZED
            ) from None

    async def _exchange(self, server: str, entra: str) -> str:
        """Exchange an Entra token for a refresh token of a registry. Raises `PullError`, `aiohttp.ClientError`."""
        form = {"grant_type": "access_token", "service": server, "access_token": entra}
        async with self._session.post(
            f"https://{server}/oauth2/exchange", data=form, allow_redirects=False, middlewares=(https_only,)
        ) as response:
            raw = await bounded.beginning(response, _LIMIT)
            with contextlib.suppress(msgspec.DecodeError):
                token = msgspec.json.decode(raw, type=_Exchanged).refresh_token
                if response.status == 200 and token:
                    return token
            raise PullError(
                f"failed to authorize: the registry refused the identity's token ({response.status})", Fault.DENIED
            )

    async def check(self, group: str, properties: GroupProperties, identity: GroupIdentity | None) -> None:
        """Raise `ArmError` for an image that these credentials cannot pull: 400 `InaccessibleImage`, as ACI does.

        A registry that does not answer in time is 409 `RegistryErrorResponse`, which clients retry.
        """
        images = sorted({item.properties.image for item in properties.all_containers})
        async with asyncio.TaskGroup() as tasks:
            checks = [tasks.create_task(self._check_in_time(group, image, properties, identity)) for image in images]
        for check in checks:
            if (error := check.result()) is not None:
                raise error

    async def _check_in_time(
        self, group: str, image: str, properties: GroupProperties, identity: GroupIdentity | None
    ) -> ArmError | None:
        try:
            async with asyncio.timeout(_PATIENCE):
                return await self._check(group, image, properties, identity)
        except TimeoutError:
            return _no_answer(image)

    async def _check(
        self, group: str, image: str, properties: GroupProperties, identity: GroupIdentity | None
    ) -> ArmError | None:
        reference = parse(image)
        failures: list[Failure] = []
        for credential in credentials_for(reference, properties.image_registry_credentials) or (None,):
            try:
                login = await self.login(credential, identity)
                await RegistryClient(self._session, reference, login).resolve()
                return None
            except PullError as error:
                if error.fault in (Fault.UNAVAILABLE, Fault.INTERRUPTED):
                    return _no_answer(image)
                failures.append(Failure(credential, error))
                if error.fault not in OF_CREDENTIALS:
                    break
            except (aiohttp.ClientError, OSError, ValueError) as error:
                failures.append(Failure(credential, PullError(str(error), Fault.INTERRUPTED)))
                break
        found = inaccessible(group, image, explain(image, reference, failures))
        return ArmError(400, found.code, found.message, target="properties.containers")

    async def forget(self, record: GroupRecord) -> None:
        """Delete what a deleted group had beside its containers: its own identity."""
        identity = record.envelope.identity
        if identity is not None and identity.is_system_assigned:
            await self._identities.discard(record.id)


def _no_answer(image: str) -> ArmError:
    """Return the error for a registry that does not serve anybody at the moment, in ACI's words."""
    return ArmError(
        409,
        "RegistryErrorResponse",
        f"An error response is received from the docker registry '{parse(image).registry}'. Please retry later.",
        target="properties.containers",
    )
