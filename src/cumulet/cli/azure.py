"""A client of Azure Resource Manager, Microsoft Graph and the registries, as the owner of the subscription."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import TypeVar

import aiohttp
import msgspec

from cumulet.common import config as settings
from cumulet.common import tls
from cumulet.common.arm import ArmClient, ArmError
from cumulet.common.ascii import fold
from cumulet.common.config import Config
from cumulet.common.entra import ARM_AUDIENCE, GRAPH_AUDIENCE, AuthenticationError, TokenSource, read_credential
from cumulet.common.resolver import LoginServerResolver

T = TypeVar("T")

RESOURCES = "2024-03-01"
REGISTRIES = "2023-07-01"
AUTHORIZATION = "2022-04-01"
CONTAINER_INSTANCE = "2023-05-01"
MANAGED_IDENTITIES = "2023-01-31"

_REPEATABLE = ("GET", "HEAD", "PUT", "DELETE")
#: A connection waits in the backlog of a room that restarts, so retries need no delay.
_TRIES = 3


class Page(msgspec.Struct, frozen=True):
    """A list response of ARM or Graph."""

    value: list[dict[str, object]]


class RegistryProperties(msgspec.Struct, frozen=True, rename="camel"):
    """The properties of a registry that verbs need."""

    login_server: str


class Registry(msgspec.Struct, frozen=True):
    """A registry resource: the fields that verbs need."""

    id: str
    name: str
    properties: RegistryProperties


class _RefreshToken(msgspec.Struct, frozen=True):
    refresh_token: str


class _AccessToken(msgspec.Struct, frozen=True):
    access_token: str


class Azure:
    """The owner's connection to identity, the front door, Graph and the registries."""

    def __init__(self, config: Config, session: aiohttp.ClientSession) -> None:
        self.config = config
        self._session = session
        self._tokens = TokenSource(session, config.url("identity"), read_credential(config.credential_file("owner")))
        self._arm = ArmClient(session, config.url("arm"), self._tokens)
        self.subscription = f"/subscriptions/{config.subscription_id}"

    async def arm(
        self, method: str, path: str, body: object = None, *, api_version: str, query: dict[str, str] | None = None
    ) -> object:
        """Call Azure Resource Manager, wait for an asynchronous operation, and return the JSON. Raises `ArmError`."""
        answer = await self._arm.call(method, path, body, api_version=api_version, query=query)
        result: object = await self._arm.finish(answer, api_version=api_version)
        if method in ("PUT", "PATCH") and answer[1].get("Azure-AsyncOperation"):
            result = (await self._arm.call("GET", path, api_version=api_version))[2]
        return result

    async def items(
        self, path: str, *, api_version: str, query: dict[str, str] | None = None
    ) -> list[dict[str, object]]:
        """Return the items of a list operation of Azure Resource Manager. Raises `ArmError`."""
        return msgspec.convert(await self.arm("GET", path, api_version=api_version, query=query), Page).value

    async def graph(
        self, method: str, path: str, body: object = None, query: Mapping[str, str] | None = None
    ) -> object:
        """Call Microsoft Graph v1.0 and return the JSON. Raises `ArmError` with Graph's code and message."""
        headers = {"Authorization": f"Bearer {await self._tokens.token(GRAPH_AUDIENCE)}"}
        url = f"{self.config.url('identity')}/v1.0{path}"
        async with self._session.request(method, url, json=body, params=query, headers=headers) as response:
            return await _decode(response)

    async def registries(self) -> list[dict[str, object]]:
        """Return the registries of the subscription. Raises `ArmError`."""
        path = f"{self.subscription}/providers/Microsoft.ContainerRegistry/registries"
        return await self.items(path, api_version=REGISTRIES)

    async def find_registry(self, name: str) -> dict[str, object]:
        """Return a registry of the subscription by its name. Raises `ArmError` `ResourceNotFound`."""
        for registry in await self.registries():
            if fold(str(registry["name"])) == fold(name):
                return registry
        raise ArmError(404, "ResourceNotFound", f"The registry '{name}' was not found in this subscription.")

    async def registry(self, name: str) -> Registry:
        """Return the typed fields of a registry by its name. Raises `ArmError` `ResourceNotFound`."""
        return msgspec.convert(await self.find_registry(name), Registry)

    async def registry_data(self, registry: Registry, path: str, scope: str, kind: type[T]) -> T:
        """GET a path of a registry's data plane as `kind`, with ACR's exchange of an Entra token for an access token."""
        server = registry.properties.login_server
        base = f"https://{server}"
        entra = await self._tokens.token(ARM_AUDIENCE)
        form = {
            "grant_type": "access_token",
            "service": server,
            "tenant": self.config.tenant_id,
            "access_token": entra,
        }
        async with self._session.post(f"{base}/oauth2/exchange", data=form) as response:
            refresh = msgspec.convert(await _decode(response), _RefreshToken).refresh_token
        form = {"grant_type": "refresh_token", "service": server, "scope": scope, "refresh_token": refresh}
        async with self._session.post(f"{base}/oauth2/token", data=form) as response:
            access = msgspec.convert(await _decode(response), _AccessToken).access_token
        async with self._session.get(f"{base}{path}", headers={"Authorization": f"Bearer {access}"}) as response:
            return msgspec.convert(await _decode(response), kind)

    def group_id(self, group: str) -> str:
        """Return the resource id of a resource group."""
        return f"{self.subscription}/resourceGroups/{group}"


def run(work: Callable[[Azure], Awaitable[T]]) -> T:
    """Run `work` with a connection to the installation in the data directory and return its result."""

    async def main() -> T:
        async with connect(settings.load(settings.default_data_dir())) as azure:
            return await work(azure)

    return asyncio.run(main())


@contextlib.asynccontextmanager
async def connect(config: Config) -> AsyncIterator[Azure]:
    """Open a connection. Raises `OSError` if the owner's credential cannot be read."""
    connector = aiohttp.TCPConnector(ssl=tls.client_context(config.ca_file), resolver=LoginServerResolver(config))
    timeout = aiohttp.ClientTimeout(total=60)
    async with aiohttp.ClientSession(connector=connector, timeout=timeout, middlewares=(_retry,)) as session:
        yield Azure(config, session)


async def _retry(request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
    """Repeat a request if its connection was lost and it is idempotent (RFC 9110 9.2.2) or asks for a token."""
    if request.method in _REPEATABLE or request.url.path.endswith("/token"):
        for _ in range(_TRIES - 1):
            with contextlib.suppress(aiohttp.ClientConnectionError):
                return await handler(request)
    return await handler(request)


async def _decode(response: aiohttp.ClientResponse) -> object:
    """Return the decoded body. Raises `ArmError`, `AuthenticationError` for an error in Graph's, OAuth2's or OCI's form."""
    raw = await response.read()
    body: object = msgspec.json.decode(raw) if raw else None
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
