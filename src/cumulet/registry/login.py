"""ACR's token end points: `/oauth2/token` (GET and POST) and `/oauth2/exchange`."""

from __future__ import annotations

from aiohttp import web

from cumulet.common.arm import json_response
from cumulet.registry.access import Gate, Principal, Unauthorized
from cumulet.registry.errors import OciError
from cumulet.registry.guard import Guard, decode_basic, parse_scopes
from cumulet.registry.store import Registry


class Login:
    """Exchanges credentials for refresh tokens, and those for access tokens."""

    def __init__(self, gate: Gate, guard: Guard) -> None:
        self._gate = gate
        self._guard = guard

    async def token(self, request: web.Request) -> web.Response:
        """`GET` with Basic, or `POST` with a form of `grant_type` `refresh_token` or `password`."""
        registry = self._guard.registry(request)
        try:
            if request.method == "GET":
                return await self._get(request, registry)
            return await self._post(request, registry)
        except Unauthorized as reason:
            raise self._guard.challenge(request, registry, None, str(reason)) from None

    async def exchange(self, request: web.Request) -> web.Response:
        """An Entra access token for an ACR refresh token."""
        registry = self._guard.registry(request)
        form = await request.post()
        entra = str(form.get("access_token") or form.get("refresh_token") or "")
        try:
            principal = await self._gate.check_entra_token(registry, entra)
        except Unauthorized as reason:
            raise self._guard.challenge(request, registry, None, str(reason)) from None
        return json_response({"refresh_token": self._gate.refresh_token(registry, principal)})

    async def _get(self, request: web.Request, registry: Registry) -> web.Response:
        authorization = request.headers.get("Authorization", "")
        if not authorization and registry.resource.anonymous_pull_enabled:
            principal = Principal("anonymous", "", frozenset({"pull"}))
        else:
            scheme, _, value = authorization.partition(" ")
            if scheme.lower() != "basic":
                raise Unauthorized("credentials are missing")
            principal = await self._gate.check_password(registry, *decode_basic(value))
        return self._answer(registry, principal, request.query.getall("scope", []))

    async def _post(self, request: web.Request, registry: Registry) -> web.Response:
        form = await request.post()
        grant = str(form.get("grant_type", ""))
        if grant == "refresh_token":
            principal = await self._gate.check_refresh_token(registry, str(form.get("refresh_token", "")))
        elif grant == "password":
            user, password = str(form.get("username", "")), str(form.get("password", ""))
            principal = await self._gate.check_password(registry, user, password)
        else:
            raise OciError(
                400, "UNSUPPORTED", f"grant_type '{grant}' is not supported: use refresh_token or password"
            )
        offline = form.get("access_type") == "offline" or grant == "refresh_token"
        return self._answer(registry, principal, [str(text) for text in form.getall("scope", [])], offline=offline)

    def _answer(
        self, registry: Registry, principal: Principal, scopes: list[str], *, offline: bool = False
    ) -> web.Response:
        token = self._gate.access_token(registry, principal, parse_scopes(scopes))
        body = {"access_token": token, "token": token, "expires_in": 600}
        if offline:
            body["refresh_token"] = self._gate.refresh_token(registry, principal)
        return json_response(body)
