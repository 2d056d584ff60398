"""What stands before every request: which registry it is for, who calls, and whether the action is theirs."""

from __future__ import annotations

import base64
import logging
from typing import Any

from aiohttp import web

from cumulet.registry.access import Access, Gate, Principal, Unauthorized
from cumulet.registry.errors import OciError
from cumulet.registry.store import Catalog, Registry

log = logging.getLogger(__name__)


class Guard:
    """Finds the registry by host name and checks the right to an action."""

    def __init__(self, catalog: Catalog, gate: Gate, suffix: str) -> None:
        self._catalog = catalog
        self._gate = gate
        self._suffix = suffix

    def registry(self, request: web.BaseRequest) -> Registry:
        """The registry of the host name; an address or another name means the oldest. Raises `OciError` 404."""
        host = request.host.rpartition(":")[0] if ":" in request.host else request.host
        registries = self._catalog.registries()
        if host.lower().endswith(f".{self._suffix}"):
            key = host.lower().removesuffix(f".{self._suffix}")
            registries = [registry for registry in registries if registry.key == key]
        if not registries:
            raise OciError(404, "NAME_UNKNOWN", f"there is no registry '{host}': create it first")
        return registries[0]

    async def demand(self, request: web.BaseRequest, registry: Registry, kind: str, name: str, *actions: str) -> str:
        """Who may do all `actions`; the principal's name.

        Raises `OciError`: 401 with a challenge where credentials are missing or not good, 403 `DENIED` where they
        are good and the right is not there.
        """
        scope = {"type": kind, "name": name, "actions": list(actions)}
        scheme, _, value = request.headers.get("Authorization", "").partition(" ")
        try:
            match scheme.lower():
                case "bearer":
                    return self._check_bearer(request, registry, scope, value.strip())
                case "basic":
                    principal = await self._gate.check_password(registry, *decode_basic(value))
                    request["principal"] = principal.name
                    return self._check_rights(registry, scope, principal)
        except Unauthorized as reason:
            raise self.challenge(request, registry, scope, str(reason)) from None
        # `/v2/` itself is challenged always: by that a client knows that it must log in before it pushes.
        if name and registry.resource.anonymous_pull_enabled and set(actions) <= {"pull"}:
            return "anonymous"
        raise self.challenge(request, registry, scope, "")

    def challenge(
        self, request: web.BaseRequest, registry: Registry, scope: dict[str, Any] | None, reason: str, error: str = ""
    ) -> OciError:
        """401, saying where a token is to be had, and why what came was not good."""
        parts = [f'realm="https://{request.host}/oauth2/token"', f'service="{self._gate.login_server(registry)}"']
        if scope is not None and scope["name"]:
            parts.append(f'scope="{scope["type"]}:{scope["name"]}:{",".join(scope["actions"])}"')
        if error:
            parts.append(f'error="{error}"')
        detail = [{"Type": scope["type"], "Name": scope["name"], "Action": scope["actions"][0]}] if scope else None
        message = f"authentication required: {reason}" if reason else "authentication required"
        return OciError(401, "UNAUTHORIZED", message, detail, {"WWW-Authenticate": f"Bearer {','.join(parts)}"})

    def _check_bearer(self, request: web.BaseRequest, registry: Registry, scope: dict[str, Any], token: str) -> str:
        claims = self._gate.tokens.verify(token, self._gate.login_server(registry), "access_token")
        name: str = claims["sub"]
        request["principal"] = name
        missing = set(scope["actions"]) - _actions(claims["access"], scope)
        if not missing or not scope["name"]:
            return name
        if missing <= _actions(claims.get("asked", []), scope):
            raise _denied(registry, scope, name)
        raise self.challenge(request, registry, scope, "the token does not cover this", "insufficient_scope")

    def _check_rights(self, registry: Registry, scope: dict[str, Any], principal: Principal) -> str:
        wanted = {"catalog"} if scope["type"] == "registry" else set(scope["actions"])
        if scope["name"] and not wanted <= principal.rights:
            raise _denied(registry, scope, principal.name)
        return principal.name


def decode_basic(value: str) -> tuple[str, str]:
    """User and password of a Basic header. Raises `Unauthorized`."""
    try:
        user, colon, password = base64.b64decode(value.strip(), validate=True).decode().partition(":")
    except ValueError:
        raise Unauthorized("the Authorization header is not valid Basic") from None
    if not colon:
        raise Unauthorized("the Authorization header is not valid Basic")
    return user, password


def parse_scopes(texts: list[str]) -> Access:
    """`repository:name:pull,push`, several to a parameter or one each; what is not of that form is left out."""
    scopes: Access = []
    for text in " ".join(texts[:1000]).split()[:100]:
        kind, _, rest = text.partition(":")
        name, _, actions = rest.rpartition(":")
        if kind in ("repository", "registry") and name:
            scopes.append(
                {"type": kind, "name": name, "actions": [action for action in actions.split(",") if action]}
            )
    return scopes


def _actions(access: Access, scope: dict[str, Any]) -> set[str]:
    return {
        action
        for entry in access
        if entry["type"] == scope["type"] and entry["name"] == scope["name"]
        for action in entry["actions"]
    }


def _denied(registry: Registry, scope: dict[str, Any], name: str) -> OciError:
    actions = " and ".join(scope["actions"])
    detail = [{"Type": scope["type"], "Name": scope["name"], "Action": action} for action in scope["actions"]]
    return OciError(
        403,
        "DENIED",
        f"requested access to the resource is denied: principal '{name}' has no role on registry '{registry.name}' "
        f"that grants {actions} on {scope['type']} '{scope['name']}'",
        detail,
    )
