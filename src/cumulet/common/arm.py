"""The common parts of Azure Resource Manager's protocol: resource ids, bodies, errors, and a client.

The front door (`arm`) authenticates and authorises a call. It then forwards the call to the room that is the resource
provider, following the Resource Provider Contract:

- the same method, path and query;
- mutual TLS, with a certificate that identifies the room `arm` (`peer_room`);
- the caller in `x-ms-client-object-id` and `x-ms-client-app-id`;
- in `Referer` the address that the caller used. Links such as `Azure-AsyncOperation` are built from it.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import re
import sqlite3
from collections.abc import Awaitable, Callable, Collection, Mapping
from typing import Any, NamedTuple, TypeVar
from urllib.parse import urlsplit

import aiohttp
import msgspec
from aiohttp import web
from aiohttp.typedefs import Middleware

from cumulet.common.ascii import fold
from cumulet.common.entra import ARM_AUDIENCE, TokenSource
from cumulet.common.room import peer_room

log = logging.getLogger(__name__)

FRONT_DOOR = "arm"

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
B = TypeVar("B", bound=msgspec.Struct)

#: A host name or address in a URL, with or without a port (RFC 3986, section 3.2.2).
_AUTHORITY = re.compile(r"(?:[A-Za-z0-9._-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\])(?::[0-9]{1,5})?")
_SEGMENT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,255}")


class ErrorDetail(msgspec.Struct, frozen=True, omit_defaults=True):
    """ARM's `ErrorDetail`: a code for programs, a message for people, and the property that it is about."""

    code: str
    message: str
    target: str | None = None


class ErrorResponse(msgspec.Struct, frozen=True):
    """ARM's `ErrorResponse`, the body of every failed request."""

    error: ErrorDetail


class ArmError(Exception):
    """An error in ARM's form, with an HTTP status."""

    def __init__(self, status: int, code: str, message: str, *, target: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.target = target

    def body(self) -> ErrorResponse:
        """Return the body of the response."""
        return ErrorResponse(ErrorDetail(self.code, self.message, self.target))


class ResourceId:
    """`/subscriptions/{s}[/resourceGroups/{g}][/providers/{namespace}/{type}/{name}…]`, compared without ASCII case.

    Raises `ArmError` 400 `InvalidResourceId` for any other text.
    """

    def __init__(self, text: str) -> None:
        parts = [part for part in text.split("/") if part]
        self.resource_group: str | None = None
        self.namespace: str | None = None
        self.types: list[str] = []
        self.names: list[str] = []
        if len(parts) < 2 or fold(parts[0]) != "subscriptions" or not text.isprintable():
            raise _not_an_id(text)
        self.subscription = parts[1]
        rest = parts[2:]
        if len(rest) >= 2 and fold(rest[0]) == "resourcegroups":
            self.resource_group, rest = rest[1], rest[2:]
        if len(rest) >= 2 and fold(rest[0]) == "providers":
            self.namespace, rest = rest[1], rest[2:]
            self.types, self.names = rest[0::2], rest[1::2]
            rest = []
        if rest or not all(_SEGMENT.fullmatch(word) for word in (self.namespace or "x", *self.types)):
            raise _not_an_id(text)

    @property
    def type(self) -> str:
        """The resource type, such as `Microsoft.ContainerRegistry/registries`."""
        return "/".join([self.namespace or "", *self.types])

    @property
    def name(self) -> str:
        """The last name, such as `acrdemo2ss`."""
        return self.names[-1] if self.names else self.resource_group or self.subscription

    def __str__(self) -> str:
        text = f"/subscriptions/{self.subscription}"
        if self.resource_group is not None:
            text += f"/resourceGroups/{self.resource_group}"
        if self.namespace is not None:
            text += f"/providers/{self.namespace}"
            for index, kind in enumerate(self.types):
                text += f"/{kind}"
                if index < len(self.names):
                    text += f"/{self.names[index]}"
        return text

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ResourceId) and self.key == other.key

    def __hash__(self) -> int:
        return hash(self.key)

    @property
    def key(self) -> str:
        """The id with A to Z in lower case, which is equal for all spellings of one id."""
        return fold(str(self))


def _not_an_id(text: str) -> ArmError:
    shown = text[:300].encode("ascii", "backslashreplace").decode()
    return ArmError(400, "InvalidResourceId", f"The resource id '{shown}' is not valid.")


def fixed(text: str, label: str) -> str:
    """Return a segment of a route that matches without ASCII case, such as `resourceGroups`."""
    return f"{{{label}:(?ai:{re.escape(text)})}}"


def json_response(body: object, status: int = 200, headers: dict[str, str] | None = None) -> web.Response:
    """Return a JSON response with any body that `msgspec` encodes."""
    return web.Response(
        body=msgspec.json.encode(body),
        status=status,
        headers=headers,
        content_type="application/json",
        charset="utf-8",
    )


_CODES = {
    401: "AuthenticationFailed",
    403: "Forbidden",
    404: "NotFound",
    405: "MethodNotAllowed",
    413: "RequestEntityTooLarge",
}


@web.middleware
async def arm_errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Return every failure in ARM's form. An unexpected one is logged, and its details are not returned."""
    try:
        return await handler(request)
    except ArmError as error:
        return json_response(error.body(), error.status)
    except web.HTTPException as error:
        if error.status < 400:
            raise
        code = _CODES.get(error.status, "BadRequest")
        return json_response(ArmError(error.status, code, error.reason).body(), error.status)
    except Exception as error:
        log.exception("%s %s failed", request.method, request.path)
        if _is_full(error):
            full = ArmError(
                507, "InsufficientStorage", "The disk of the server is full: nothing was changed. Try again."
            )
            return json_response(full.body(), full.status)
        return json_response(ArmError(500, "InternalServerError", "The server met an internal error.").body(), 500)


def _is_full(error: Exception) -> bool:
    """Return whether a disk without space is the cause."""
    if isinstance(error, sqlite3.OperationalError):
        return error.sqlite_errorcode == sqlite3.SQLITE_FULL
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)


def require_front_door(request: web.BaseRequest) -> None:
    """Raises `ArmError` 403 unless the client presented the front door's certificate."""
    if peer_room(request) != FRONT_DOOR:
        raise ArmError(
            403, "Forbidden", "Resource providers answer the front door only: call Azure Resource Manager."
        )


def behind_the_front_door(open_routes: Collection[str]) -> Middleware:
    """Return a middleware that accepts only the front door, except on `open_routes`, which have guards of their own.

    `open_routes` are canonical routes (`AbstractResource.canonical`). The middleware decides by the route that aiohttp
    matched, never by the path: no path is parsed twice, and a new route is closed by default.
    """
    known = frozenset(open_routes)

    @web.middleware
    async def guarded(request: web.Request, handler: Handler) -> web.StreamResponse:
        resource = request.match_info.route.resource
        if resource is None or resource.canonical not in known:
            require_front_door(request)
        return await handler(request)

    return guarded


def front_door_url(request: web.BaseRequest) -> str:
    """Return the base URL that the caller of the front door used, for links in a resource provider's responses."""
    referer = urlsplit(request.headers.get("Referer", ""))
    return f"https://{authority(referer.netloc, authority(request.host, 'localhost'))}"


def authority(text: str, otherwise: str) -> str:
    """Return `text` if it is a host with an optional port, and `otherwise` if it is not."""
    return text if _AUTHORITY.fullmatch(text) else otherwise


#: Bytes of a container group with the files of its volumes: a pod can mount several secrets and config maps of 1 MiB.
GROUP_BODY_LIMIT = 8 * 1024 * 1024


async def read_json(request: web.BaseRequest) -> dict[str, Any]:
    """Return the request's body as a JSON object. Raises `ArmError` 400 `InvalidRequestContent`."""
    try:
        body = msgspec.json.decode(await request.read() or b"{}")
    except (msgspec.DecodeError, RecursionError) as error:
        raise ArmError(400, "InvalidRequestContent", f"The request content was invalid: {error}") from None
    if not isinstance(body, dict):
        raise ArmError(400, "InvalidRequestContent", "The request content must be a JSON object.")
    return body


async def read_body(request: web.BaseRequest, kind: type[B], code: str = "InvalidRequestContent") -> B:
    """Return the request's body as a `kind`. Raises `ArmError` 400, with `code` where a property has another type.

    If Azure has a special error for the type of a property, the struct has an `object`, and its reader checks the type.
    """
    document = await read_json(request)
    try:
        return msgspec.convert(document, kind)
    except msgspec.ValidationError as error:
        raise ArmError(400, code, f"The request content was invalid: {error}") from None


#: Azure's limits of tags (Resource Manager, "Use tags to organize your Azure resources").
_TAGS, _TAG_NAME, _TAG_VALUE = 50, 512, 256
_NOT_IN_TAGS = frozenset("<>%&\\?/")


def read_tags(body: Mapping[str, object]) -> dict[str, str]:
    """Return the `tags` of a resource in a request, empty if there are none. Raises `ArmError` 400."""
    return checked_tags(body.get("tags"))


def checked_tags(given: object) -> dict[str, str]:
    """Return the value of a `tags` property, empty for null. Raises `ArmError` 400."""
    try:
        tags = msgspec.convert({} if given is None else given, dict[str, str])
    except msgspec.ValidationError as error:
        raise ArmError(400, "InvalidRequestContent", f"tags: {error}", target="tags") from None
    if len(tags) > _TAGS:
        raise ArmError(400, "TooManyTags", f"A resource has at most {_TAGS} tags.", target="tags")
    for name, value in tags.items():
        shown = name[:100].encode("unicode_escape").decode()
        if not name.isprintable() or not _NOT_IN_TAGS.isdisjoint(name):
            raise ArmError(
                400,
                "InvalidTagNameCharacters",
                f"The tag name '{shown}' has reserved characters '<,>,%,&,\\,?,/' or control characters.",
                target="tags",
            )
        if not 0 < len(name) <= _TAG_NAME:
            raise ArmError(400, "InvalidTagNameLength", f"A tag name has 1 to {_TAG_NAME} characters.", target="tags")
        if len(value) > _TAG_VALUE or not value.isprintable():
            raise ArmError(
                400,
                "InvalidTagValueLength" if len(value) > _TAG_VALUE else "InvalidTagValueCharacters",
                f"The value of the tag '{shown}' is longer than {_TAG_VALUE} characters or has control characters.",
                target="tags",
            )
    return tags


class ArmAnswer(NamedTuple):
    """A successful response: status, headers, and the decoded JSON body, `None` if it is empty."""

    status: int
    headers: dict[str, str]
    body: Any


class _Operation(msgspec.Struct):
    """The state of a long-running operation (Resource Provider Contract, "Asynchronous Operations")."""

    status: str | None = None
    error: ErrorDetail | None = None


class ArmClient:
    """A client of Azure Resource Manager, ours or the real one, with an Entra token."""

    def __init__(self, session: aiohttp.ClientSession, base_url: str, tokens: TokenSource) -> None:
        self._session = session
        self._base_url = base_url
        self._tokens = tokens

    async def call(
        self, method: str, path: str, body: object = None, *, api_version: str, query: dict[str, str] | None = None
    ) -> ArmAnswer:
        """Send one request. Raises `ArmError` for a status of 400 or more, `aiohttp.ClientError`, `AuthenticationError`."""
        url = path if path.startswith("https://") else self._base_url + path
        headers = {"Authorization": f"Bearer {await self._tokens.token(ARM_AUDIENCE)}"}
        data = None
        if body is not None:
            data = msgspec.json.encode(body)
            headers["Content-Type"] = "application/json"
        params = None if "api-version=" in url else {"api-version": api_version, **(query or {})}
        async with self._session.request(method, url, params=params, data=data, headers=headers) as response:
            raw = await response.read()
            if response.status >= 400:
                raise _error(response.status, raw)
            return ArmAnswer(response.status, dict(response.headers), msgspec.json.decode(raw) if raw else None)

    async def finish(self, answer: ArmAnswer, *, api_version: str) -> Any:
        """Poll `Azure-AsyncOperation` or `Location` until the operation ends, and return the last body.

        Returns the body of `answer` if it started no operation. Raises `ArmError` if the operation failed.
        """
        url = answer.headers.get("Azure-AsyncOperation")
        if url is None and answer.status == 202:
            url = answer.headers.get("Location")
        while url is not None:
            # The server sets the interval: this protocol has no event to wait on.
            await asyncio.sleep(float(answer.headers.get("Retry-After", "1")))
            answer = await self.call("GET", url, api_version=api_version)
            try:
                operation = msgspec.convert(answer.body or {}, _Operation)
            except msgspec.ValidationError as error:
                raise ArmError(answer.status, "UnexpectedResponse", str(error)) from None
            state = operation.status or ("Succeeded" if answer.status != 202 else "InProgress")
            if state in ("Failed", "Canceled"):
                failure = operation.error or ErrorDetail(state, "The operation failed.")
                raise ArmError(409, failure.code, failure.message)
            if state == "Succeeded":
                break
        return answer.body


def _error(status: int, raw: bytes) -> ArmError:
    try:
        error = msgspec.json.decode(raw, type=ErrorResponse).error
    except msgspec.DecodeError:
        return ArmError(status, "UnexpectedResponse", raw[:500].decode(errors="replace"))
    return ArmError(status, error.code, error.message, target=error.target)
