"""Pulling from another registry, as any OCI client does (OCI Distribution Specification 1.1; token authentication)."""

from __future__ import annotations

import hashlib
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import NamedTuple
from urllib.parse import urlsplit

import aiohttp
import msgspec

from cumulet.common.ascii import fold
from cumulet.registry import names
from cumulet.registry.errors import OciError

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

#: Where Docker Hub's images are; its own name serves pages for people.
_HUB = {"docker.io": "registry-1.docker.io", "index.docker.io": "registry-1.docker.io"}


class UpstreamError(Exception):
    """The other registry refused or failed; the message says which, and its own reason. `status` is 0 for no answer."""

    def __init__(self, server: str, status: int, reason: str) -> None:
        super().__init__(f"{server}: {reason}")
        self.status = status


class Fetched(NamedTuple):
    """A manifest as the other registry sent it."""

    body: bytes
    media_type: str
    digest: str


class Upstream:
    """One other registry, over TLS. `user` and `password` are shown to it, or to whom it sends us for a token, alone."""

    def __init__(
        self, session: aiohttp.ClientSession, server: str, credentials: tuple[str, str] | None, manifest_limit: int
    ) -> None:
        self.server = server
        self._session = session
        self._base = f"https://{_HUB.get(server, server)}"
        self._credentials = credentials
        self._manifest_limit = manifest_limit
        self._authorization: dict[str, str] = {}

    async def manifest(self, repository: str, reference: str) -> Fetched:
        """A manifest by a tag or digest. Raises `UpstreamError`."""
        async with self._get(f"/v2/{repository}/manifests/{reference}", repository) as response:
            body = bytearray()
            async for chunk in response.content.iter_any():
                body += chunk
                if len(body) > self._manifest_limit:
                    raise UpstreamError(self.server, 413, f"the manifest is larger than {self._manifest_limit} bytes")
            media_type = response.headers.get("Content-Type", "")
        algorithm = reference.partition(":")[0] if names.is_digest(reference) else "sha256"
        digest = f"{algorithm}:{hashlib.new(algorithm, body).hexdigest()}"
        if names.is_digest(reference) and digest != reference:
            raise UpstreamError(self.server, 502, f"what it sent as {reference} is {digest}")
        return Fetched(bytes(body), media_type, digest)

    @asynccontextmanager
    async def blob(self, repository: str, digest: str) -> AsyncIterator[AsyncIterator[bytes]]:
        """The bytes of a blob as they come, unchecked. Raises `UpstreamError`."""
        async with self._get(f"/v2/{repository}/blobs/{digest}", repository) as response:
            yield response.content.iter_chunked(_CHUNK)

    @asynccontextmanager
    async def _get(self, path: str, repository: str) -> AsyncIterator[aiohttp.ClientResponse]:
        try:
            async with self._ask(path, repository) as response:
                if response.status != 401 or not await self._log_in(response, repository):
                    yield await self._checked(response)
                    return
            async with self._ask(path, repository) as response:
                yield await self._checked(response)
        except (aiohttp.ClientError, TimeoutError) as error:
            raise UpstreamError(self.server, 0, str(error) or type(error).__name__) from None

    def _ask(self, path: str, repository: str) -> aiohttp.client._RequestContextManager:
        headers = {"Accept": _ACCEPTED}
        if authorization := self._authorization.get(repository):
            headers["Authorization"] = authorization
        return self._session.get(self._base + path, headers=headers, timeout=_TIMEOUT)

    async def _checked(self, response: aiohttp.ClientResponse) -> aiohttp.ClientResponse:
        if response.status == 200:
            return response
        text = await response.content.read(_ERROR_LIMIT)
        try:
            errors = msgspec.json.decode(text)["errors"]
            reason = f"{errors[0]['code']}: {errors[0]['message']}"
        except (msgspec.DecodeError, KeyError, TypeError, IndexError):
            reason = str(response.reason)
        raise UpstreamError(self.server, response.status, f"{response.status} {reason}"[:500])

    async def _log_in(self, response: aiohttp.ClientResponse, repository: str) -> bool:
        """Answer a challenge; whether there was anything to answer with that had not been tried."""
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
        realm = challenge.get("realm", "")
        if urlsplit(realm).scheme != "https":
            raise UpstreamError(self.server, 401, f"it sends for a token to '{realm[:200]}', which is not https")
        query = {"scope": challenge.get("scope") or f"repository:{repository}:pull"}
        if service := challenge.get("service"):
            query["service"] = service
        auth = aiohttp.BasicAuth(*self._credentials, encoding="utf-8") if self._credentials is not None else None
        async with self._session.get(realm, params=query, auth=auth, timeout=_TIMEOUT) as response:
            answer = msgspec.json.decode(await (await self._checked(response)).content.read(_ERROR_LIMIT))
        token = answer.get("token") or answer.get("access_token") if isinstance(answer, dict) else None
        if not isinstance(token, str):
            raise UpstreamError(self.server, 401, "it gave no token")
        return token


def parse_image(text: str, *, default_tag: str | None = "latest") -> tuple[str, str | None]:
    """Repository and reference of `repository[:tag][@digest]`. Raises `OciError` 400."""
    name, at, digest = text.partition("@")
    head, _, last = name.rpartition("/")
    last, colon, tag = last.partition(":")
    repository = names.repository(f"{head}/{last}" if head else last)
    if at:
        return repository, names.digest(digest)
    return repository, names.tag(tag) if colon else default_tag


def is_server(text: str) -> bool:
    """Whether a text is a host name or address, perhaps with a port."""
    return _SERVER.fullmatch(text) is not None and len(text) <= 255


def as_oci(error: UpstreamError) -> OciError:
    """What a client of ours is answered where another registry failed."""
    if error.status == 404:
        return OciError(404, "MANIFEST_UNKNOWN", str(error))
    return OciError(503, "UNAVAILABLE", str(error), headers={"Retry-After": "5"})
