"""Authentication: Basic and Bearer, the admin user, service principals, repository tokens and ACR's refresh tokens.

The secret of a service principal is checked by requesting a token with it from the identity room. Its rights are the role
assignments that the front door returns. Both happen each time a token is issued. Access tokens live for ten minutes.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import TypeVar

import aiohttp
import msgspec

from cumulet.common.arm import ArmClient, ArmError
from cumulet.common.ascii import fold
from cumulet.common.config import Config
from cumulet.common.entra import (
    ARM_AUDIENCE,
    REGISTRY_AUDIENCE,
    AuthenticationError,
    TokenSource,
    TokenVerifier,
    read_credential,
)
from cumulet.common.rbac import BUILT_IN_ROLES, RoleAssignment, RoleDefinition
from cumulet.common.secrets import Guard, Known, TooManyFailuresError
from cumulet.registry.access.repository_tokens import RepositoryToken
from cumulet.registry.access.rights import (
    REPOSITORY_ACTIONS,
    AllRights,
    PullRights,
    Rights,
    RoleRights,
    ScopeMapRights,
)
from cumulet.registry.access.scope_maps import SYSTEM_SCOPE_MAPS, ScopeMap
from cumulet.registry.access.scopes import Scope
from cumulet.registry.access.tokens import ACCESS_LIFE, REFRESH_LIFE, Claims, SealError, Tokens, Unauthorized
from cumulet.registry.catalog.child_resources import Resources
from cumulet.registry.catalog.store import Registry
from cumulet.registry.oci.errors import OciError

#: The user name that goes with an ACR refresh token.
NULL_GUID = "00000000-0000-0000-0000-000000000000"

ABAC = "AbacRepositoryPermissions"

_API_VERSION = "2022-04-01"
#: Characters of the longest token: a longer one does not fit into a header that servers accept.
_LONGEST_TOKEN = 7 * 1024

S = TypeVar("S", bound=Known)


class Principal(msgspec.Struct, frozen=True):
    """A verified caller. `name` appears in errors and logs.

    `bound` holds the claims that tie a refresh token to the credential that it was issued for, so that both end together.
    """

    name: str
    rights: Rights
    bound: Mapping[str, str] = {}


class _AdminPassword(msgspec.Struct, frozen=True):
    key_id: str
    hint: str
    hash: str


class Gate:
    """Checks credentials and issues tokens."""

    def __init__(self, config: Config, session: aiohttp.ClientSession, tokens: Tokens, resources: Resources) -> None:
        self._config = config
        self._wait = config.registry_limits.login_wait
        self._session = session
        self._resources = resources
        self.tokens = tokens
        identity = config.url("identity")
        self._token_url = f"{identity}/{config.tenant_id}/oauth2/v2.0/token"
        own = TokenSource(session, identity, read_credential(config.credential_file("registry")))
        self._arm = ArmClient(session, config.url("arm"), own)
        self._verifier = TokenVerifier(session, identity, config.tenant_id)
        self._secrets = Guard()

    def login_server(self, registry: Registry) -> str:
        """The host name of a registry, such as `name.azurecr.io`."""
        return f"{registry.key}.{self._config.registry_suffix}"

    def admin_passwords(self, registry: Registry) -> list[str]:
        """The two passwords of the admin user, derived and not stored, because they can be shown again."""
        return [
            hashlib.sha256(
                self.tokens.derive(f"{fold(registry.id)}|{registry.created}|{number}|{generation}")
            ).hexdigest()[:52]
            for number, generation in enumerate(registry.resource.password_generations)
        ]

    # Checks of credentials. All return the principal, and raise `Unauthorized`, or `OciError`: 429 after too many
    # failures, 503 while identity or the front door does not answer.

    async def check_password(self, registry: Registry, user: str, password: str) -> Principal:
        """The principal with this user name and password."""
        if user == NULL_GUID:
            return await self.check_refresh_token(registry, password)
        if fold(user) == registry.key:
            return await self._check_admin(registry, password)
        token = self._resources.find(registry.key, RepositoryToken, user)
        if token is not None:
            return await self._check_repository_token(registry, token, password)
        return await self._check_secret(registry, user, password)

    async def check_refresh_token(self, registry: Registry, token: str) -> Principal:
        """The principal of an ACR refresh token. Its credential and its rights are checked again each time."""
        claims = self.tokens.verify(token, self.login_server(registry), "refresh_token")
        match claims.kind:
            case "admin":
                keys = [password.key_id for password in self._admin_keys(registry)]
                if registry.resource.admin_user_enabled and claims.key_id in keys:
                    return _admin(registry, claims.key_id)
            case "token":
                repository_token = self._resources.find(registry.key, RepositoryToken, claims.sub)
                if repository_token is not None and self._is_good(repository_token, claims.key_id):
                    return self._holder(registry, repository_token, claims.key_id)
            case "secret":
                return await self._check_secret(registry, claims.sub, self._unsealed(registry, claims))
            case "principal":
                return await self.principal(registry, claims.sub, claims.oid)
        raise Unauthorized(f"the credential of '{claims.sub}' that the token came from is no longer valid")

    async def check_entra_token(self, registry: Registry, token: str) -> Principal:
        """The principal of an Entra access token."""
        audiences = (ARM_AUDIENCE, REGISTRY_AUDIENCE, "https://management.core.windows.net", self._config.url("arm"))
        try:
            async with asyncio.timeout(self._wait):
                claims = await self._verifier.verify(token, *audiences)
        except AuthenticationError as error:
            raise Unauthorized(f"the Entra token is not valid: {error}") from None
        except (aiohttp.ClientError, TimeoutError):
            raise _unavailable("identity") from None
        return await self.principal(registry, str(claims.get("appid", claims["oid"])), str(claims["oid"]))

    def anonymous(self, registry: Registry) -> Principal:
        """The anonymous principal, where anonymous pull is enabled."""
        if not registry.resource.anonymous_pull_enabled:
            raise Unauthorized("credentials are missing")
        return Principal("anonymous", PullRights())

    # Tokens.

    def refresh_token(self, registry: Registry, principal: Principal) -> str:
        """An ACR refresh token. It names its principal and grants no right itself."""
        named = {"read": "pull", "write": "push", "delete": "delete", "sign": "sign"}
        actions = [word for word, action in named.items() if principal.rights.allow(action, "repository", "")]
        return self.tokens.issue(
            self.login_server(registry),
            principal.name,
            REFRESH_LIFE,
            grant_type="refresh_token",
            tenant=self._config.tenant_id,
            permissions={"actions": actions, "notActions": None},
            roles=[],
            **principal.bound,
        )

    def access_token(self, registry: Registry, principal: Principal, requested: Sequence[Scope]) -> str:
        """An access token for the requested actions that the principal may perform, possibly none.

        The token also records the refused actions, so that they are answered with 403 instead of another challenge.
        Raises `OciError` 400 where the token would not fit into a header.
        """
        granted, refused = [], []
        for scope in requested:
            actions = _expanded(scope)
            held = [action for action in actions if principal.rights.allow(action, scope.type, scope.name)]
            granted.append(Scope(scope.type, scope.name, held))
            if len(held) < len(actions):
                denied = [action for action in actions if action not in held]
                refused.append(Scope(scope.type, scope.name, denied))
        token = self.tokens.issue(
            self.login_server(registry),
            principal.name,
            ACCESS_LIFE,
            grant_type="access_token",
            access=granted,
            refused=refused,
            tenant=self._config.tenant_id,
        )
        if len(token) > _LONGEST_TOKEN:
            raise OciError(400, "UNSUPPORTED", "too many scopes, or too long ones, for one token: ask for fewer")
        return token

    # The kinds of credentials.

    async def _check_admin(self, registry: Registry, password: str) -> Principal:
        if not registry.resource.admin_user_enabled:
            raise Unauthorized(
                f"the admin user '{registry.key}' is not enabled: enable it, or use a service principal"
            )
        known = self._admin_keys(registry)
        match = await self._throttled(f"{registry.key}\nadmin", known, password, _same)
        if match is None:
            raise Unauthorized(f"the password of the admin user '{registry.key}' is wrong")
        return _admin(registry, match.key_id)

    def _admin_keys(self, registry: Registry) -> list[_AdminPassword]:
        generations = registry.resource.password_generations
        return [
            _AdminPassword(f"{registry.created}.{number}.{generation}", text[:3], text)
            for number, (generation, text) in enumerate(zip(generations, self.admin_passwords(registry), strict=True))
        ]

    async def _check_repository_token(self, registry: Registry, token: RepositoryToken, text: str) -> Principal:
        password = await self._throttled(f"{registry.key}\n{token.name}", token.passwords, text)
        if password is None:
            raise Unauthorized(f"the password of the token '{token.name}' is wrong")
        if not token.enabled:
            raise Unauthorized(f"the token '{token.name}' is disabled")
        if not password.is_good():
            raise Unauthorized(f"{password.name} of the token '{token.name}' has expired")
        return self._holder(registry, token, password.key_id)

    @staticmethod
    def _is_good(token: RepositoryToken, key_id: str) -> bool:
        return token.enabled and any(known.key_id == key_id and known.is_good() for known in token.passwords)

    def _holder(self, registry: Registry, token: RepositoryToken, key_id: str) -> Principal:
        scope_map = SYSTEM_SCOPE_MAPS.get(token.scope_map)
        scope_map = scope_map or self._resources.find(registry.key, ScopeMap, token.scope_map)
        rights = ScopeMapRights(scope_map.grants() if scope_map is not None else [])
        return Principal(token.name, rights, {"kind": "token", "key_id": key_id})

    async def _throttled(
        self, client: str, known: Sequence[S], text: str, matches: Callable[[str, str], Awaitable[bool]] | None = None
    ) -> S | None:
        try:
            return await self._secrets.find(client, known, text, matches)
        except TooManyFailuresError as error:
            raise _too_many(str(error), str(error.retry_after)) from None

    async def _check_secret(self, registry: Registry, user: str, secret: str) -> Principal:
        """The service principal, if the identity room issues a token for its secret."""
        form = {
            "grant_type": "client_credentials",
            "client_id": user,
            "client_secret": secret,
            "scope": f"{REGISTRY_AUDIENCE}/.default",
        }
        try:
            async with asyncio.timeout(self._wait), self._session.post(self._token_url, data=form) as response:
                body = msgspec.json.decode(await response.read())
                if response.status == 429:
                    raise _too_many("Too many failed attempts.", response.headers.get("Retry-After", "1"))
                if response.status != 200:
                    reason = str(body["error_description"]).split(" Trace ID:")[0]
                    raise Unauthorized(f"the credentials of '{user[:100]}' were refused: {reason}")
            claims = await self._verifier.verify(body["access_token"], REGISTRY_AUDIENCE)
        except (aiohttp.ClientError, TimeoutError, msgspec.DecodeError, KeyError, AuthenticationError):
            raise _unavailable("identity") from None
        # User names are compared without case: use the spelling of the identity room.
        principal = await self.principal(registry, str(claims["appid"]), str(claims["oid"]))
        sealed = self.tokens.seal(self._place(registry, principal.name), secret)
        return msgspec.structs.replace(principal, bound={"kind": "secret", "sealed": sealed})

    def _unsealed(self, registry: Registry, claims: Claims) -> str:
        try:
            return self.tokens.open(self._place(registry, claims.sub), claims.sealed)
        except SealError:
            raise Unauthorized("the token is not valid") from None

    def _place(self, registry: Registry, subject: str) -> str:
        return f"refresh token\n{registry.key}\n{subject}"

    async def principal(self, registry: Registry, name: str, object_id: str) -> Principal:
        """A service principal that was verified elsewhere, with its current rights."""
        path = f"{registry.id}/providers/Microsoft.Authorization/roleAssignments"
        query = {"$filter": f"assignedTo('{object_id}')"}
        try:
            async with asyncio.timeout(self._wait):
                _, _, answer = await self._arm.call("GET", path, api_version=_API_VERSION, query=query)
                assignments = [RoleAssignment.from_arm(item) for item in answer["value"]]
                definitions = await self._definitions({assignment.role for assignment in assignments})
        except (aiohttp.ClientError, TimeoutError, ArmError, AuthenticationError):
            raise _unavailable("the front door") from None
        rights = RoleRights(
            registry.id,
            assignments,
            definitions,
            repository_roles_only=registry.resource.role_assignment_mode == ABAC,
        )
        return Principal(name, rights, {"kind": "principal", "oid": object_id})

    async def _definitions(self, roles: Iterable[str]) -> dict[str, RoleDefinition]:
        async def read(role: str) -> RoleDefinition | None:
            path = f"/subscriptions/{self._config.subscription_id}/providers/Microsoft.Authorization/roleDefinitions/{role}"
            try:
                return RoleDefinition.from_arm((await self._arm.call("GET", path, api_version=_API_VERSION))[2])
            except ArmError as error:
                if error.status == 404:  # deleted in the meantime: it grants nothing
                    return None
                raise

        custom = await asyncio.gather(*(read(role) for role in roles if role not in BUILT_IN_ROLES))
        return {**BUILT_IN_ROLES, **{role.name: role for role in custom if role is not None}}


def _admin(registry: Registry, key_id: str) -> Principal:
    return Principal(registry.key, AllRights(), {"kind": "admin", "key_id": key_id})


def _expanded(scope: Scope) -> list[str]:
    """The actions, with `*` on a repository expanded to all of them."""
    return list(REPOSITORY_ACTIONS) if scope.type == "repository" and "*" in scope.actions else scope.actions


async def _same(known: str, text: str) -> bool:
    return hmac.compare_digest(known.encode(), text.encode())


def _too_many(message: str, retry_after: str) -> OciError:
    return OciError(429, "TOOMANYREQUESTS", message, headers={"Retry-After": retry_after})


def _unavailable(service: str) -> OciError:
    return OciError(503, "UNAVAILABLE", f"{service} does not answer: try again", headers={"Retry-After": "1"})
