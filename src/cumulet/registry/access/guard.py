"""The check before every request of the data plane: the registry, the caller, and the caller's right to the action."""

from __future__ import annotations

import base64
import logging
import re

import msgspec
from aiohttp import web

from cumulet.common.ascii import fold
from cumulet.registry.access import request_context
from cumulet.registry.access.gate import Gate, Principal
from cumulet.registry.access.scopes import Scope
from cumulet.registry.access.tokens import Unauthorized
from cumulet.registry.catalog.store import Catalog, Registry
from cumulet.registry.oci.errors import OciError

log = logging.getLogger(__name__)

_HOST = re.compile(r"[A-Za-z0-9._-]+(?::\d{1,5})?|\[[0-9A-Fa-f:.]+\](?::\d{1,5})?", re.ASCII)


class _Detail(msgspec.Struct, rename="pascal"):
    """The `detail` of an error, as ACR has it."""

    type: str
    name: str
    action: str


class Guard:
    """Finds the registry by host name and checks the right to an action."""

    def __init__(self, catalog: Catalog, gate: Gate, suffix: str) -> None:
        self._catalog = catalog
        self._gate = gate
        self._suffix = suffix

    def registry(self, request: web.BaseRequest) -> Registry:
        """The registry of the host name, or the oldest one for an address or another name. Raises `OciError` 404."""
        host = request.host.rpartition(":")[0] if ":" in request.host else request.host
        registries = self._catalog.registries()
        if fold(host).endswith(f".{self._suffix}"):
            key = fold(host).removesuffix(f".{self._suffix}")
            registries = [registry for registry in registries if registry.key == key]
        if not registries:
            raise OciError(404, "NAME_UNKNOWN", f"there is no registry '{host}': create it first")
        return registries[0]

    async def demand(self, request: web.BaseRequest, registry: Registry, kind: str, name: str, *actions: str) -> str:
        """The name of the caller, who may perform all `actions`. With an empty `name`, valid credentials are enough.

        Raises `OciError`: 401 with a challenge where credentials are missing or not valid, 403 `DENIED` where they are
        valid and do not grant the actions.
        """
        scope = Scope(kind, name, list(actions))
        context = request_context.of(request)
        context.place, context.scope = (registry.key, name), f"{kind}:{name}:{','.join(actions)}"
        scheme, _, value = request.headers.get("Authorization", "").partition(" ")
        try:
            match fold(scheme):
                case "bearer":
                    return self._check_bearer(request, registry, scope, value.strip())
                case "basic":
                    principal = await self._gate.check_password(registry, *decode_basic(value))
                    context.principal = principal.name
                    return _check_rights(registry, scope, principal)
        except Unauthorized as reason:
            error = "invalid_token" if fold(scheme) == "bearer" else ""
            raise self.challenge(request, registry, scope, str(reason), error) from None
        raise self.challenge(request, registry, scope, "")

    def challenge(
        self, request: web.BaseRequest, registry: Registry, scope: Scope | None, reason: str, error: str = ""
    ) -> OciError:
        """401 with the address of the token server and the reason for the refusal."""
        server = self._gate.login_server(registry)
        host = request.host if _HOST.fullmatch(request.host) else server
        parts = [f'realm="https://{host}/oauth2/token"', f'service="{server}"']
        if scope is not None and scope.name:
            parts.append(f'scope="{scope.type}:{scope.name}:{",".join(scope.actions)}"')
        if error:
            parts.append(f'error="{error}"')
        detail = _details(scope)[:1] if scope is not None else None
        message = f"authentication required: {reason}" if reason else "authentication required"
        return OciError(401, "UNAUTHORIZED", message, detail, {"WWW-Authenticate": f"Bearer {','.join(parts)}"})

    def _check_bearer(self, request: web.BaseRequest, registry: Registry, scope: Scope, token: str) -> str:
        claims = self._gate.tokens.verify(token, self._gate.login_server(registry), "access_token")
        name = claims.sub
        request_context.of(request).principal = name
        missing = set(scope.actions) - _actions(claims.access, scope)
        if not missing or not scope.name:
            request_context.of(request).token_ends = claims.exp
            return name
        if missing <= _actions(claims.refused, scope):
            raise _denied(registry, scope, name)
        raise self.challenge(request, registry, scope, "the token does not cover this", "insufficient_scope")


def _check_rights(registry: Registry, scope: Scope, principal: Principal) -> str:
    rights = principal.rights
    if scope.name and not all(rights.allow(action, scope.type, scope.name) for action in scope.actions):
        raise _denied(registry, scope, principal.name)
    return principal.name


def decode_basic(value: str) -> tuple[str, str]:
    """The user name and password of a Basic header. Raises `Unauthorized`."""
    try:
        user, colon, password = base64.b64decode(value.strip(), validate=True).decode().partition(":")
    except ValueError:
        raise Unauthorized("the Authorization header is not valid Basic") from None
    if not colon:
        raise Unauthorized("the Authorization header is not valid Basic")
    return user, password


def _actions(granted: list[Scope], scope: Scope) -> set[str]:
    """The actions in some scopes on the repository or registry of `scope`."""
    return {
        action
        for entry in granted
        if entry.type == scope.type and entry.name == scope.name
        for action in entry.actions
    }


def _details(scope: Scope) -> list[_Detail]:
    return [_Detail(scope.type, scope.name, action) for action in scope.actions]


def _denied(registry: Registry, scope: Scope, name: str) -> OciError:
    actions = " and ".join(scope.actions)
    return OciError(
        403,
        "DENIED",
        f"requested access to the resource is denied: principal '{name}' has no role on registry '{registry.name}' "
        f"that grants {actions} on {scope.type} '{scope.name}'",
        _details(scope),
    )
