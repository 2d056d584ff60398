"""`registries/tokens` and `generateCredentials` (REST reference 2023-07-01)."""

from __future__ import annotations

import re
from typing import Literal

import msgspec
from aiohttp import web
from msgspec import UNSET, UnsetType

from cumulet.common import clock
from cumulet.common.arm import ArmError, json_response, read_json
from cumulet.common.ascii import fold
from cumulet.registry.access.repository_tokens import PASSWORDS, Password, RepositoryToken, new_password
from cumulet.registry.access.scope_maps import SYSTEM_SCOPE_MAPS, ScopeMap
from cumulet.registry.catalog.store import Registry
from cumulet.registry.provider import paths
from cumulet.registry.provider.bodies import Properties, given
from cumulet.registry.provider.child_resources import Body, Children

_GUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE | re.ASCII)
_STATES = ("enabled", "disabled")


class _PasswordName(msgspec.Struct):
    name: str | None = None


class _CredentialsRequest(msgspec.Struct):
    passwords: list[_PasswordName] | None = None


class _Request(msgspec.Struct, rename="camel"):
    scope_map_id: str | UnsetType = UNSET
    status: str | UnsetType = UNSET
    credentials: _CredentialsRequest | UnsetType = UNSET


class _Generate(msgspec.Struct, rename="camel"):
    """The body of `generateCredentials`, without the id of the token."""

    name: Literal["password1", "password2"] | None = None
    expiry: str | None = None


class _PasswordDocument(msgspec.Struct, rename="camel"):
    name: str
    creation_time: str
    expiry: str | None
    value: str | UnsetType = UNSET


class _Credentials(msgspec.Struct):
    """`certificates` is always empty: certificates are not supported."""

    passwords: list[_PasswordDocument]
    certificates: list[str]


class _Properties(Properties):
    creation_date: str
    scope_map_id: str
    status: str
    credentials: _Credentials


class _Generated(msgspec.Struct):
    """The response of `generateCredentials`."""

    username: str
    passwords: list[_PasswordDocument]


class RepositoryTokens(Children[RepositoryToken, _Request]):
    """Repository tokens. Passwords are generated, shown once and stored as hashes. A caller cannot choose one."""

    kind = RepositoryToken
    request = _Request

    def routes(self) -> list[web.RouteDef]:
        """The routes of the type, and `generateCredentials`."""
        generate = f"{paths.REGISTRY}/{paths.word('generateCredentials')}"
        return [*super().routes(), web.post(generate, self._generate)]

    def check_change(self, registry: Registry, name: str) -> None:
        """Raises `ArmError` 400 for the name of another kind of principal."""
        if fold(name) == registry.key or _GUID.fullmatch(name):
            raise ArmError(400, "InvalidName", f"The name '{name}' is that of another principal.", target="name")

    async def read(
        self, registry: Registry, name: str, body: Body[_Request], existing: RepositoryToken | None
    ) -> RepositoryToken:
        """The token. A request with `credentials.passwords` removes all other passwords. Raises `ArmError` 400."""
        properties = body.properties
        status = given(properties.status, "enabled" if existing is None or existing.enabled else "disabled")
        if status not in _STATES:
            raise ArmError(
                400, "InvalidTokenStatus", f"status must be {' or '.join(_STATES)}.", target="properties.status"
            )
        if not isinstance(properties.scope_map_id, UnsetType):
            scope_map = self._scope_map(registry, properties.scope_map_id)
        elif existing is not None:
            scope_map = existing.scope_map
        else:
            raise ArmError(400, "ScopeMapRequired", "scopeMapId is missing.", target="properties.scopeMapId")
        passwords = existing.passwords if existing else ()
        kept = given(properties.credentials, _CredentialsRequest()).passwords
        if kept is not None:
            names = {item.name for item in kept}
            passwords = tuple(password for password in passwords if password.name in names)
        return RepositoryToken(
            name, existing.created if existing else clock.rfc3339_micro(), scope_map, status == "enabled", passwords
        )

    def properties(self, registry: Registry, resource: RepositoryToken) -> _Properties:
        """The properties in responses."""
        return _Properties(
            creation_date=resource.created,
            scope_map_id=f"{registry.id}/scopeMaps/{resource.scope_map}",
            status="enabled" if resource.enabled else "disabled",
            credentials=_Credentials([_show(password) for password in resource.passwords], []),
        )

    def _scope_map(self, registry: Registry, scope_map_id: str) -> str:
        """The name of the scope map with an id, in the same registry. Raises `ArmError` 400."""
        prefix, _, name = scope_map_id.rpartition("/")
        system = SYSTEM_SCOPE_MAPS.get(fold(name))
        scope_map = system or self._resources.find(registry.key, ScopeMap, name)
        if fold(prefix) != fold(f"{registry.id}/scopeMaps") or scope_map is None:
            raise ArmError(
                400,
                "ScopeMapNotFound",
                f"The scope map '{scope_map_id[:300]}' was not found in the registry '{registry.name}'.",
                target="properties.scopeMapId",
            )
        return scope_map.name

    async def _generate(self, request: web.Request) -> web.Response:
        """Generate one password, or both without a name. The other password stays valid."""
        registry = paths.existing(self._catalog, request)
        body = await read_json(request)
        token_id = str(body.get("tokenId", ""))
        self._named(registry, token_id)
        generate = _read_generate(body)
        names = (generate.name,) if generate.name else PASSWORDS
        generated = {each: await new_password(each, _expiry(generate.expiry)) for each in names}
        async with self._change:
            token = self._named(registry, token_id)
            passwords = {password.name: password for password in token.passwords}
            passwords |= {each: password for each, (password, _) in generated.items()}
            kept = tuple(passwords[each] for each in PASSWORDS if each in passwords)
            await self._resources.put(registry.key, msgspec.structs.replace(token, passwords=kept))
        return json_response(_Generated(token.name, [_show(password, text) for password, text in generated.values()]))

    def _named(self, registry: Registry, token_id: str) -> RepositoryToken:
        prefix, _, name = token_id.rpartition("/")
        token = self._resources.find(registry.key, RepositoryToken, name)
        if fold(prefix) != fold(f"{registry.id}/tokens") or token is None:
            raise ArmError(404, "TokenNotFound", f"The token '{token_id[:300]}' was not found.", target="tokenId")
        return token


def _show(password: Password, value: str | UnsetType = UNSET) -> _PasswordDocument:
    return _PasswordDocument(password.name, password.created, password.expiry, value)


def _read_generate(body: dict[str, object]) -> _Generate:
    """The body of `generateCredentials`. Raises `ArmError` 400."""
    try:
        return msgspec.convert(body, _Generate)
    except msgspec.ValidationError as error:
        if str(error).endswith("`$.name`"):
            message = f"name must be {' or '.join(PASSWORDS)}."
            raise ArmError(400, "InvalidPasswordName", message, target="name") from None
        raise ArmError(400, "InvalidExpiry", "expiry must be a time in RFC 3339.", target="expiry") from None


def _expiry(text: str | None) -> str | None:
    if text is None:
        return None
    try:
        moment = clock.parse(text)
    except (ValueError, OverflowError):
        raise ArmError(400, "InvalidExpiry", "expiry must be a time in RFC 3339.", target="expiry") from None
    if moment <= clock.now():
        raise ArmError(400, "InvalidExpiry", "expiry must be in the future.", target="expiry")
    return clock.rfc3339_micro(moment)
