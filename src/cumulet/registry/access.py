"""Who calls and what they may do: Basic and Bearer, the admin user, service principals and ACR's refresh tokens.

A principal's secret is checked by asking the identity room for a token with it, and its rights by reading its role
assignments from the front door, each time that a token is given out. Access tokens then live for minutes.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import logging
import os
import time
import uuid
from pathlib import Path
from typing import Any

import aiohttp
import jwt
import msgspec

from cumulet.common.arm import ArmClient
from cumulet.common.config import Config, write_private
from cumulet.common.entra import (
    ARM_AUDIENCE,
    REGISTRY_AUDIENCE,
    AuthenticationError,
    Credential,
    TokenSource,
    TokenVerifier,
    read_credential,
)
from cumulet.common.rbac import DELETE, PULL, PUSH, RoleAssignment, RoleDefinition, allowed
from cumulet.registry.store import Registry

log = logging.getLogger(__name__)

#: The user name that goes with an ACR refresh token.
NULL_GUID = "00000000-0000-0000-0000-000000000000"

_ISSUER = "Azure Container Registry"
_REFRESH_LIFE = 3 * 3600
_ACCESS_LIFE = 10 * 60
_API_VERSION = "2022-04-01"

#: What each action on a repository asks of a role: the registry's action, or the repository's data action.
_RIGHTS = {
    "pull": (PULL, "Microsoft.ContainerRegistry/registries/repositories/content/read"),
    "push": (PUSH, "Microsoft.ContainerRegistry/registries/repositories/content/write"),
    "delete": (DELETE, "Microsoft.ContainerRegistry/registries/repositories/content/delete"),
    "metadata_read": (PULL, "Microsoft.ContainerRegistry/registries/repositories/metadata/read"),
    "metadata_write": (PUSH, "Microsoft.ContainerRegistry/registries/repositories/metadata/write"),
    "catalog": (PULL, "Microsoft.ContainerRegistry/registries/catalog/read"),
}
ALL_ACTIONS = frozenset(_RIGHTS)

#: The `access` claim: `[{type, name, actions}]`.
Access = list[dict[str, Any]]


class Principal(msgspec.Struct, frozen=True):
    """A verified caller: `name` is what errors and logs call it, `rights` what it may do on the whole registry."""

    name: str
    object_id: str
    rights: frozenset[str]


class Unauthorized(Exception):  # noqa: N818  (it is an answer, 401, not a fault)
    """The credentials are not good; the message says whose and why."""


class Tokens:
    """Signs and checks the registry's own refresh and access tokens (HS256: no one else checks them).

    Keys are kept for a while after they were replaced, so that rotation logs nobody out.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._keys: dict[str, str] = {}
        if path.exists():
            self._keys = msgspec.json.decode(path.read_bytes(), type=dict[str, str])
        else:
            self.rotate()
        self._verified: dict[str, dict[str, Any]] = {}

    def rotate(self) -> None:
        """Sign with a new key from now on; the one before stays good."""
        self._keys = {uuid.uuid4().hex: os.urandom(32).hex(), **dict(list(self._keys.items())[:1])}
        write_private(self._path, msgspec.json.encode(self._keys))

    def derive(self, purpose: str) -> bytes:
        """A key for another purpose that stays the same as long as this file."""
        path = self._path.with_name("seed.key")
        if not path.exists():
            write_private(path, os.urandom(32))
        return hmac.digest(path.read_bytes(), purpose.encode(), "sha256")

    def issue(self, server: str, subject: str, life: int, **claims: Any) -> str:
        """A token for a login server."""
        now = int(time.time())
        kid = next(iter(self._keys))
        heads = {
            "jti": str(uuid.uuid4()),
            "sub": subject,
            "nbf": now,
            "iat": now,
            "exp": now + life,
            "iss": _ISSUER,
            "aud": server,
            "version": "1.0",
        }
        return jwt.encode({**heads, **claims}, bytes.fromhex(self._keys[kid]), "HS256", headers={"kid": kid})

    def verify(self, token: str, server: str, grant_type: str) -> dict[str, Any]:
        """The claims of a token of ours. Raises `Unauthorized`."""
        claims = self._verified.get(token)
        if claims is None:
            try:
                key = self._keys.get(str(jwt.get_unverified_header(token).get("kid")))
                if key is None:
                    raise jwt.InvalidTokenError("it was signed with a key that is not known")
                claims = jwt.decode(
                    token,
                    bytes.fromhex(key),
                    algorithms=["HS256"],
                    issuer=_ISSUER,
                    options={"verify_aud": False, "require": ["exp", "aud"]},
                )
            except jwt.InvalidTokenError as error:
                raise Unauthorized(f"the token is not valid: {error}") from None
            if len(self._verified) > 4096:
                self._verified.clear()
            self._verified[token] = claims
        if claims["exp"] <= time.time():
            raise Unauthorized("the token has expired")
        if claims["aud"] != server or claims.get("grant_type") != grant_type:
            raise Unauthorized(f"the token is not a token of {server}")
        return claims


class Gate:
    """Checks credentials and rights."""

    def __init__(self, config: Config, session: aiohttp.ClientSession, tokens: Tokens) -> None:
        self._config = config
        self._session = session
        self.tokens = tokens
        identity = config.url("identity")
        own = TokenSource(session, identity, read_credential(config.credential_file("registry")))
        self._arm = ArmClient(session, config.url("arm"), own)
        self._verifier = TokenVerifier(session, identity, config.tenant_id)

    def login_server(self, registry: Registry) -> str:
        """`name.azurecr.io`."""
        return f"{registry.key}.{self._config.registry_suffix}"

    def admin_passwords(self, registry: Registry) -> list[str]:
        """The admin user's two passwords: derived and not stored, since they can be shown again."""
        return [
            hashlib.sha256(
                self.tokens.derive(f"{registry.id.lower()}|{registry.created}|{number}|{generation}")
            ).hexdigest()[:52]
            for number, generation in enumerate(registry.resource.password_generations)
        ]

    async def check_password(self, registry: Registry, user: str, password: str) -> Principal:
        """Whose user name and password these are. Raises `Unauthorized`."""
        if user == NULL_GUID:
            return await self.check_refresh_token(registry, password)
        if user.lower() == registry.key:
            return self._check_admin(registry, password)
        credential = Credential(
            tenant_id=self._config.tenant_id, client_id=user, object_id="", display_name="", client_secret=password
        )
        try:
            token = await TokenSource(self._session, self._config.url("identity"), credential).token(
                REGISTRY_AUDIENCE
            )
            claims = await self._verifier.verify(token, REGISTRY_AUDIENCE)
        except AuthenticationError as error:
            reason = str(error).split(" Trace ID:")[0]
            raise Unauthorized(f"the credentials of '{user}' were refused: {reason}") from None
        return await self._principal(registry, claims)

    async def check_refresh_token(self, registry: Registry, token: str) -> Principal:
        """Whose ACR refresh token this is; its rights are read anew. Raises `Unauthorized`."""
        claims = self.tokens.verify(token, self.login_server(registry), "refresh_token")
        if claims["sub"] == registry.key and "oid" not in claims:
            return Principal(registry.key, "", ALL_ACTIONS)
        return await self._principal(registry, {"appid": claims["sub"], "oid": claims["oid"]})

    async def check_entra_token(self, registry: Registry, token: str) -> Principal:
        """Whose Entra access token this is. Raises `Unauthorized`."""
        try:
            claims = await self._verifier.verify(token, ARM_AUDIENCE, REGISTRY_AUDIENCE, self._config.url("arm"))
        except AuthenticationError as error:
            raise Unauthorized(f"the Entra token is not valid: {error}") from None
        return await self._principal(registry, claims)

    def refresh_token(self, registry: Registry, principal: Principal) -> str:
        """An ACR refresh token, which names its principal and carries no right of its own."""
        return self.tokens.issue(
            self.login_server(registry),
            principal.name,
            _REFRESH_LIFE,
            grant_type="refresh_token",
            tenant=self._config.tenant_id,
            permissions={"actions": sorted(principal.rights), "notActions": []},
            roles=[],
            **({"oid": principal.object_id} if principal.object_id else {}),
        )

    def access_token(self, registry: Registry, principal: Principal, asked: Access) -> str:
        """An access token with the part of what was asked that the principal may do, which may be nothing.

        What was asked is kept too: where it was not granted the answer is a plain 403, and not another challenge.
        """
        granted = [
            {**scope, "actions": [action for action in scope["actions"] if _holds(principal, scope, action)]}
            for scope in asked
        ]
        return self.tokens.issue(
            self.login_server(registry),
            principal.name,
            _ACCESS_LIFE,
            grant_type="access_token",
            access=granted,
            asked=asked,
            tenant=self._config.tenant_id,
        )

    def _check_admin(self, registry: Registry, password: str) -> Principal:
        if not registry.resource.admin_user_enabled:
            raise Unauthorized(
                f"the admin user '{registry.key}' is not enabled: enable it, or use a service principal"
            )
        # Both are compared whatever the first gives, in constant time.
        right = [hmac.compare_digest(known.encode(), password.encode()) for known in self.admin_passwords(registry)]
        if not any(right):
            raise Unauthorized(f"the password of the admin user '{registry.key}' is wrong")
        return Principal(registry.key, "", ALL_ACTIONS)

    async def _principal(self, registry: Registry, claims: dict[str, Any]) -> Principal:
        path = f"{registry.id}/providers/Microsoft.Authorization/roleAssignments"
        query = {"$filter": f"assignedTo('{claims['oid']}')"}
        _, _, answer = await self._arm.call("GET", path, api_version=_API_VERSION, query=query)
        assignments = [RoleAssignment.from_arm(item) for item in answer["value"]]
        definitions = await self._definitions(assignments)
        rights = frozenset(
            name
            for name, (action, data_action) in _RIGHTS.items()
            if allowed(action, registry.id, assignments, definitions)
            or allowed(data_action, registry.id, assignments, definitions, data=True)
        )
        return Principal(claims["appid"], claims["oid"], rights)

    async def _definitions(self, assignments: list[RoleAssignment]) -> dict[str, RoleDefinition]:
        async def read(role: str) -> tuple[str, RoleDefinition]:
            path = f"/subscriptions/{self._config.subscription_id}/providers/Microsoft.Authorization/roleDefinitions/{role}"
            _, _, answer = await self._arm.call("GET", path, api_version=_API_VERSION)
            return role, RoleDefinition.from_arm(answer)

        return dict(await asyncio.gather(*(read(role) for role in {assignment.role for assignment in assignments})))


def _holds(principal: Principal, scope: dict[str, Any], action: str) -> bool:
    if scope["type"] == "registry":
        return scope["name"] == "catalog" and "catalog" in principal.rights
    wanted = {"*": "push", "metadata_read": "metadata_read", "metadata_write": "metadata_write"}.get(action, action)
    return wanted in principal.rights
