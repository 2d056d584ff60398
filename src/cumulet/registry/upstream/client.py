"""Pulling from another registry, as any OCI client does (OCI Distribution Specification 1.1; token authentication).

Credentials go to that registry and to the token server that it names, as in containerd and docker, and over TLS only.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Annotated, NamedTuple

import aiohttp
import msgspec
from yarl import URL

from cumulet.common import bounded, digests
from cumulet.common.ascii import fold
from cumulet.common.digests import Digest
from cumulet.common.egress import https_only
from cumulet.common.limits import RegistryLimits
from cumulet.registry.oci import names
from cumulet.registry.oci.errors import OciError

_SERVER = re.compile(r"[a-zA-Z0-9](?:[a-zA-Z0-9.-]*[a-zA-Z0-9])?(?::\d{1,5})?", re.ASCII)
_CHALLENGE = re.compile(r'([a-z_]+)="([^"]*)"')
_ACCEPTED = ", ".join(
    (
        "application/vnd.oci.image.index.v1+json",
        "application/vnd.oci.image.manifest.v1+json",
        "application/vnd.docker.distribution.manifest.list.v2+json",
        "application/vnd.docker.distribution.manifest.v2+json",
        "*/*",
    )
)
_CHUNK = 1024 * 1024
_TIMEOUT = aiohttp.ClientTimeout(total=None, sock_connect=10, sock_read=60)
_ERROR_LIMIT = 64 * 1024
_TOKEN_LIMIT = 64 * 1024
#: The characters of the other registry's error message to pass on.
_REASON = 500
#: The characters of a token, which becomes part of a header.
_VISIBLE = r"\A[\x21-\x7e]*\Z"

#: The registry of Docker Hub, whose own name serves web pages.
_HUB = {"docker.io": "registry-1.docker.io", "index.docker.io": "registry-1.docker.io"}


class UpstreamError(Exception):
    """The other registry refused or failed. The message has its name and its reason. `status` is 0 without a response."""

    def __init__(self, server: str, status: int, reason: str) -> None:
        super().__init__(f"{server}: {reason}")
        self.status = status


class Fetched(NamedTuple):
    """A manifest as the other registry sent it."""

    body: bytes
    media_type: str
    digest: Digest


class _Token(msgspec.Struct, frozen=True):
    token: Annotated[str, msgspec.Meta(pattern=_VISIBLE)] | None = None
    access_token: Annotated[str, msgspec.Meta(pattern=_VISIBLE)] | None = None


class Upstream:
    """Another registry, over TLS. `credentials` are a user name and a password, for it and its token server alone."""

    def __init__(
        self, session: aiohttp.ClientSession, server: str, credentials: tuple[str, str] | None, limits: RegistryLimits
    ) -> None:
        self.server = server
        self._session = session
        self._base = URL(f"https://{_HUB.get(server, server)}")
        self._credentials = credentials
        self._limits = limits
        self._authorization: dict[str, str] = {}

    async def manifest(self, repository: str, reference: str) -> Fetched:
        """Read a manifest by a tag or digest. Raises `UpstreamError`."""
        async with self._get(f"/v2/{repository}/manifests/{reference}", repository) as response:
            body = await bounded.read(response, self._limits.manifest_bytes)
            media_type = response.headers.get("Content-Type", "")
        expected = names.digest(reference) if names.is_digest(reference) else None
        digest = digests.of(body, digests.algorithm(expected) if expected else "sha256")
        if expected and digest != expected:
            raise UpstreamError(self.server, 502, f"the content sent as {expected} has the digest {digest}")
        return Fetched(body, media_type, digest)

    @asynccontextmanager
    async def blob(self, repository: str, digest: Digest) -> AsyncIterator[AsyncIterator[bytes]]:
        """A context manager that streams the bytes of a blob, not verified. Raises `UpstreamError`."""
        async with self._get(f"/v2/{repository}/blobs/{digest}", repository) as response:
            yield self._limited(response)

    async def _limited(self, response: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
        left = self._limits.blob_bytes
        async for chunk in response.content.iter_chunked(_CHUNK):
            left -= len(chunk)
            if left < 0:
                raise UpstreamError(self.server, 413, f"the blob is larger than {self._limits.blob_bytes} bytes")
            yield chunk

    @asynccontextmanager
    async def _get(self, path: str, repository: str) -> AsyncIterator[aiohttp.ClientResponse]:
        try:
            async with self._ask(path, repository) as response:
                # The target of a redirect gets no credentials, and its challenges are not answered.
                is_its_own = response.url.origin() == self._base.origin()
                if response.status != 401 or not is_its_own or not await self._log_in(response, repository):
                    yield await self._checked(response)
                    return
            async with self._ask(path, repository) as response:
                yield await self._checked(response)
        except bounded.TooLargeError as error:
            raise UpstreamError(self.server, 413, str(error)) from None
        except aiohttp.ClientConnectorError as error:
            why = f"cannot connect: {error.os_error.strerror or error.os_error}"
            raise UpstreamError(self.server, 0, why) from None
        except (aiohttp.ClientError, TimeoutError, ValueError) as error:
            raise UpstreamError(self.server, 0, (str(error) or type(error).__name__)[:_REASON]) from None

    def _ask(self, path: str, repository: str) -> aiohttp.client._RequestContextManager:
        headers = {"Accept": _ACCEPTED}
        if authorization := self._authorization.get(repository):
            headers["Authorization"] = authorization
        url = self._base.with_path(path)
        return self._session.get(url, headers=headers, timeout=_TIMEOUT, middlewares=(https_only,))

    async def _checked(self, response: aiohttp.ClientResponse) -> aiohttp.ClientResponse:
        if response.status == 200:
            return response
        text = await bounded.beginning(response, _ERROR_LIMIT)
        try:
            errors = msgspec.json.decode(text)["errors"]
            reason = f"{errors[0]['code']}: {errors[0]['message']}"
        except (msgspec.DecodeError, KeyError, TypeError, IndexError, RecursionError):
            reason = str(response.reason)
        reason = "".join(character if character.isprintable() else " " for character in reason[:_REASON])
        raise UpstreamError(self.server, response.status, f"{response.status} {reason}")

    async def _log_in(self, response: aiohttp.ClientResponse, repository: str) -> bool:
        """Prepare to answer a challenge. Returns whether a retry makes sense: once per repository, with credentials."""
        scheme, _, rest = response.headers.get("WWW-Authenticate", "").partition(" ")
        if repository in self._authorization:
            return False
        if fold(scheme) == "basic" and self._credentials is not None:
            self._authorization[repository] = aiohttp.BasicAuth(*self._credentials, encoding="utf-8").encode()
            return True
        if fold(scheme) != "bearer":
            return False
        self._authorization[repository] = f"Bearer {await self._token(dict(_CHALLENGE.findall(rest)), repository)}"
        return True

    async def _token(self, challenge: Mapping[str, str], repository: str) -> str:
        try:
            realm = URL(challenge.get("realm", ""))
            is_usable = realm.scheme == "https" and bool(realm.host) and not realm.user
        except ValueError:
            is_usable = False
        if not is_usable:
            raise UpstreamError(self.server, 401, "its token server is not an https address")
        query = {"scope": challenge.get("scope") or f"repository:{repository}:pull"}
        if service := challenge.get("service"):
            query["service"] = service
        auth = aiohttp.BasicAuth(*self._credentials, encoding="utf-8") if self._credentials is not None else None
        async with self._session.get(
            realm.update_query(query), auth=auth, timeout=_TIMEOUT, middlewares=(https_only,)
        ) as response:
            raw = await bounded.read(await self._checked(response), _TOKEN_LIMIT)
        try:
            answer = msgspec.json.decode(raw, type=_Token)
        except (msgspec.MsgspecError, RecursionError):
            raise UpstreamError(self.server, 401, "the response of its token server is not valid") from None
        token = answer.token or answer.access_token
        if not token:
            raise UpstreamError(self.server, 401, "its token server returned no token")
        return token


def parse_image(text: str, *, default_tag: str | None = "latest") -> tuple[str, str | None]:
    """The repository and reference of `repository[:tag][@digest]`. Raises `OciError` 400."""
    name, at, digest = text.partition("@")
    head, _, last = name.rpartition("/")
    last, colon, tag = last.partition(":")
    repository = names.repository(f"{head}/{last}" if head else last)
    if at:
        return repository, names.digest(digest)
    return repository, names.tag(tag) if colon else default_tag


def is_server(text: str) -> bool:
    """Whether a text is a host name or address, with or without a port."""
    return _SERVER.fullmatch(text) is not None and len(text) <= 255


def as_oci(error: UpstreamError) -> OciError:
    """The error for a client of this registry when another registry fails."""
    if error.status == 404:
        return OciError(404, "MANIFEST_UNKNOWN", str(error))
    return OciError(503, "UNAVAILABLE", str(error), headers={"Retry-After": "5"})
