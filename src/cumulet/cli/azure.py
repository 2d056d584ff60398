"""The calls of the short verbs: Azure Resource Manager and Microsoft Graph, as the owner of the subscription."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, TypeVar

import aiohttp
import msgspec

from cumulet.common import config as settings
from cumulet.common import tls
from cumulet.common.arm import ArmClient, ArmError, ResourceId
from cumulet.common.ascii import fold
from cumulet.common.config import Config
from cumulet.common.entra import ARM_AUDIENCE, GRAPH_AUDIENCE, AuthenticationError, TokenSource, read_credential
from cumulet.common.resolver import LoginServerResolver

T = TypeVar("T")

RESOURCES = "2024-03-01"
REGISTRIES = "2023-07-01"
AUTHORIZATION = "2022-04-01"
CONTAINER_INSTANCE = "2023-05-01"

_REPEATABLE = ("GET", "HEAD", "PUT", "DELETE")
#: A room that starts again holds back who calls meanwhile, so the next try waits for it and no delay is needed.
_TRIES = 3


class Azure:
    """The owner's connection to identity, the front door, Graph and the registries."""

    def __init__(self, config: Config, session: aiohttp.ClientSession) -> None:
        self.config = config
        self._session = session
        self._tokens = TokenSource(session, config.url("identity"), read_credential(config.credential_file("owner")))
        self._arm = ArmClient(session, config.url("arm"), self._tokens)
        self.subscription = f"/subscriptions/{config.subscription_id}"

    async def arm(
        self, method: str, path: str, body: Any = None, *, api_version: str, query: dict[str, str] | None = None
    ) -> Any:
        """A call of Azure Resource Manager, followed to its end where it is asynchronous. Raises `ArmError`."""
        answer = await self._arm.call(method, path, body, api_version=api_version, query=query)
        result = await self._arm.finish(answer, api_version=api_version)
        if method in ("PUT", "PATCH") and answer[1].get("Azure-AsyncOperation"):
            result = (await self._arm.call("GET", path, api_version=api_version))[2]
        return result

    async def graph(self, method: str, path: str, body: Any = None, query: dict[str, str] | None = None) -> Any:
        """A call of Microsoft Graph v1.0. Raises `ArmError` with Graph's code and message."""
        headers = {"Authorization": f"Bearer {await self._tokens.token(GRAPH_AUDIENCE)}"}
        url = f"{self.config.url('identity')}/v1.0{path}"
        async with self._session.request(method, url, json=body, params=query, headers=headers) as response:
            return await _answer(response)

    async def find_registry(self, name: str) -> dict[str, Any]:
        """A registry of the subscription by its name. Raises `ArmError` `ResourceNotFound`."""
        path = f"{self.subscription}/providers/Microsoft.ContainerRegistry/registries"
        found = await self.arm("GET", path, api_version=REGISTRIES)
        for registry in found["value"]:
            if fold(registry["name"]) == fold(name):
                result: dict[str, Any] = registry
                return result
        raise ArmError(404, "ResourceNotFound", f"The registry '{name}' was not found in this subscription.")

    async def registry_data(self, registry: dict[str, Any], path: str, scope: str) -> Any:
        """A GET on a registry's data plane, with ACR's exchange of an Entra token for an access token."""
        server = registry["properties"]["loginServer"]
        base = f"https://{server}"
        entra = await self._tokens.token(ARM_AUDIENCE)
        form = {
            "grant_type": "access_token",
            "service": server,
            "tenant": self.config.tenant_id,
            "access_token": entra,
        }
        async with self._session.post(f"{base}/oauth2/exchange", data=form) as response:
            refresh = (await _answer(response))["refresh_token"]
        form = {"grant_type": "refresh_token", "service": server, "scope": scope, "refresh_token": refresh}
        async with self._session.post(f"{base}/oauth2/token", data=form) as response:
            access = (await _answer(response))["access_token"]
        async with self._session.get(f"{base}{path}", headers={"Authorization": f"Bearer {access}"}) as response:
            return await _answer(response)

    def group_id(self, group: str) -> str:
        """The id of a resource group."""
        return f"{self.subscription}/resourceGroups/{group}"


def run(work: Callable[[Azure], Awaitable[T]]) -> T:
    """Do `work` with a connection to the installation of this command."""

    async def main() -> T:
        async with connect(settings.load(settings.default_data_dir())) as azure:
            return await work(azure)

    return asyncio.run(main())


@contextlib.asynccontextmanager
async def connect(config: Config) -> AsyncIterator[Azure]:
    """An open connection."""
    connector = aiohttp.TCPConnector(ssl=tls.client_context(config.ca_file), resolver=LoginServerResolver(config))
    timeout = aiohttp.ClientTimeout(total=60)
    async with aiohttp.ClientSession(connector=connector, timeout=timeout, middlewares=(_try_again,)) as session:
        yield Azure(config, session)


async def _try_again(request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
    """Ask again where a room died over a request that may be repeated (RFC 9110 9.2.2, and a token's)."""
    if request.method in _REPEATABLE or request.url.path.endswith("/token"):
        for _ in range(_TRIES - 1):
            with contextlib.suppress(aiohttp.ClientConnectionError):
                return await handler(request)
    return await handler(request)


async def _answer(response: aiohttp.ClientResponse) -> Any:
    """The decoded body, or the error that it tells of: in Graph's form, OAuth2's or the OCI's."""
    raw = await response.read()
    body = msgspec.json.decode(raw) if raw else None
    if response.status < 400:
        return body
    body = body if isinstance(body, dict) else {}
    if errors := body.get("errors"):
        raise ArmError(response.status, errors[0]["code"], errors[0]["message"])
    error = body.get("error")
    if isinstance(error, dict):
        raise ArmError(response.status, error.get("code", ""), error.get("message", ""))
    if error:
        raise AuthenticationError(str(body.get("error_description", error)))
    raise ArmError(response.status, str(response.status), raw[:300].decode(errors="replace"))


def resource_group_of(resource: dict[str, Any]) -> str:
    """The resource group in a resource's id."""
    return ResourceId(resource["id"]).resource_group or ""
