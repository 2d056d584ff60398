"""ACR's token endpoints: `/oauth2/token` (GET and POST) and `/oauth2/exchange`."""

from __future__ import annotations

from urllib.parse import parse_qs

import msgspec
from aiohttp import web
from msgspec import UNSET, UnsetType

from cumulet.common.arm import json_response
from cumulet.common.ascii import fold
from cumulet.registry.access.gate import Gate, Principal
from cumulet.registry.access.guard import Guard, decode_basic
from cumulet.registry.access.scopes import parse_scopes
from cumulet.registry.access.tokens import ACCESS_LIFE, Unauthorized
from cumulet.registry.catalog.store import Registry
from cumulet.registry.oci.errors import OciError

_FORM = "application/x-www-form-urlencoded"
_FIELDS = 200
#: The grant types of `/oauth2/exchange`: an Entra token, a refresh token of this registry, or either.
_EXCHANGES = ("access_token", "access_token_refresh_token", "refresh_token")
#: RFC 6749, section 5.1: a response with a token must not be cached.
_NO_STORE = {"Cache-Control": "no-store"}

_Form = dict[str, list[str]]


class _AccessToken(msgspec.Struct):
    """The response of `/oauth2/token`. `token` is the same as `access_token`, and `expires_in` is in seconds."""

    access_token: str
    token: str
    expires_in: int
    refresh_token: str | UnsetType = UNSET


class _RefreshToken(msgspec.Struct):
    refresh_token: str


class Login:
    """Exchanges credentials for refresh tokens, and refresh tokens for access tokens."""

    def __init__(self, gate: Gate, guard: Guard) -> None:
        self._gate = gate
        self._guard = guard

    async def token(self, request: web.Request) -> web.Response:
        """Answer `GET` with Basic, or `POST` with a form of `grant_type` `refresh_token` or `password`."""
        registry = self._guard.registry(request)
        try:
            if request.method in ("GET", "HEAD"):
                return await self._get(request, registry)
            return await self._post(registry, await _form(request))
        except Unauthorized as reason:
            raise self._guard.challenge(request, registry, None, str(reason)) from None

    async def exchange(self, request: web.Request) -> web.Response:
        """Exchange an Entra access token, or an ACR refresh token, for a new ACR refresh token."""
        registry = self._guard.registry(request)
        form = await _form(request)
        grant = _one(form, "grant_type")
        if grant not in _EXCHANGES:
            raise _no_grant(grant, *_EXCHANGES)
        try:
            if entra := _one(form, "access_token"):
                principal = await self._gate.check_entra_token(registry, entra)
            elif refresh := _one(form, "refresh_token"):
                principal = await self._gate.check_refresh_token(registry, refresh)
            else:
                raise OciError(400, "UNSUPPORTED", "the form has no access_token")
        except Unauthorized as reason:
            raise self._guard.challenge(request, registry, None, str(reason)) from None
        body = _RefreshToken(self._gate.refresh_token(registry, principal))
        return json_response(body, headers=_NO_STORE)

    async def _get(self, request: web.Request, registry: Registry) -> web.Response:
        scheme, _, value = request.headers.get("Authorization", "").partition(" ")
        match fold(scheme):
            case "":
                principal = self._gate.anonymous(registry)
            case "basic":
                principal = await self._gate.check_password(registry, *decode_basic(value))
            case "bearer":
                principal = await self._gate.check_refresh_token(registry, value.strip())
            case _:
                raise Unauthorized("the Authorization header is neither Basic nor Bearer")
        offline = fold(request.query.get("offline_token", "")) in ("true", "1")
        return self._answer(registry, principal, request.query.getall("scope", []), offline=offline)

    async def _post(self, registry: Registry, form: _Form) -> web.Response:
        grant = _one(form, "grant_type")
        if grant == "refresh_token":
            principal = await self._gate.check_refresh_token(registry, _one(form, "refresh_token"))
        elif grant == "password" and "username" not in form and "password" not in form:
            principal = self._gate.anonymous(registry)  # SDKs without a credential send this form
        elif grant == "password":
            user, password = _one(form, "username"), _one(form, "password")
            principal = await self._gate.check_password(registry, user, password)
        else:
            raise _no_grant(grant, "refresh_token", "password")
        offline = _one(form, "access_type") == "offline" or grant == "refresh_token"
        return self._answer(registry, principal, form.get("scope", []), offline=offline)

    def _answer(self, registry: Registry, principal: Principal, scopes: list[str], *, offline: bool) -> web.Response:
        token = self._gate.access_token(registry, principal, parse_scopes(scopes))
        body = _AccessToken(token, token, ACCESS_LIFE)
        if offline and principal.bound:
            body.refresh_token = self._gate.refresh_token(registry, principal)
        return json_response(body, headers=_NO_STORE)


async def _form(request: web.Request) -> _Form:
    """The form of a POST. Raises `OciError` 400, 405, 413, 415."""
    if request.method != "POST":
        raise OciError(405, "UNSUPPORTED", f"{request.method} is not supported here", headers={"Allow": "GET, POST"})
    if request.content_type != _FORM:
        raise OciError(415, "UNSUPPORTED", f"the content type must be {_FORM}")
    try:
        text = (await request.read()).decode()
        return parse_qs(text, keep_blank_values=True, strict_parsing=bool(text), max_num_fields=_FIELDS)
    except ValueError:
        raise OciError(400, "UNSUPPORTED", f"the body is not valid {_FORM} of at most {_FIELDS} fields") from None


def _one(form: _Form, name: str) -> str:
    values = form.get(name, [""])
    if len(values) > 1:
        raise OciError(400, "UNSUPPORTED", f"{name} is given more than once")
    return values[0]


def _no_grant(grant: str, *known: str) -> OciError:
    return OciError(400, "UNSUPPORTED", f"grant_type '{grant[:100]}' is not supported: use {' or '.join(known)}")
