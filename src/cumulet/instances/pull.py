"""Pulling from a registry (OCI Distribution Specification 1.1, "Pull") with the credentials that are handed over.

The registry's challenge says how to log in; its own words are what a failure tells.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

import aiohttp
import msgspec

from cumulet.common.ascii import fold
from cumulet.instances.architecture import GOARCH
from cumulet.instances.image_config import ImageConfigError, parse_image_config
from cumulet.instances.reference import Reference

_MANIFESTS = (
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
)
_LIMIT = 4 * 1024 * 1024
_PARAMETER = re.compile(r'(\w+)="([^"]*)"', re.ASCII)
_CHUNK = 256 * 1024
_TRIES = 3


class PullError(Exception):
    """The image cannot be had; the message is the registry's own reason."""


class Login(NamedTuple):
    """Who pulls."""

    username: str
    password: str


class Image(NamedTuple):
    """A resolved image: its digest, configuration, and layers as (digest, size, media type)."""

    digest: str
    config: dict[str, Any]
    layers: list[tuple[str, int, str]]
    size: int


class RegistryClient:
    """Pulls of one image from one registry."""

    def __init__(self, session: aiohttp.ClientSession, reference: Reference, login: Login | None) -> None:
        self._session = session
        self._reference = reference
        self._login = login
        self._authorization: str | None = None
        host = "registry-1.docker.io" if reference.registry == "docker.io" else reference.registry
        self._base = f"https://{host}/v2/{reference.repository}"

    async def resolve(self) -> Image:
        """The image for this platform. Raises `PullError`."""
        digest, manifest, raw = await self._manifest(self._reference.target)
        size = len(raw)
        if "manifests" in manifest:
            chosen = _for_platform(manifest["manifests"])
            if chosen is None:
                raise PullError(f"no matching manifest for linux/{GOARCH} in the manifest list entries")
            _, manifest, raw = await self._manifest(chosen)
            size += len(raw)
        config = manifest.get("config") or {}
        if not isinstance(config.get("digest"), str) or not isinstance(manifest.get("layers"), list):
            raise PullError("the manifest is not an image")
        async with self._get(f"/blobs/{config['digest']}") as response:
            raw = await _body(response)
        _check(raw, config["digest"])
        layers = [
            (item["digest"], int(item.get("size", 0)), item.get("mediaType", "")) for item in manifest["layers"]
        ]
        size += len(raw) + sum(item[1] for item in layers)
        try:
            return Image(digest, parse_image_config(raw), layers, size)
        except ImageConfigError as error:
            raise PullError(str(error)) from None

    async def download(self, digest: str, write: Callable[[bytes], Awaitable[None]]) -> None:
        """Hand a blob to `write` piece by piece; a connection that breaks is taken up where it broke.

        What was handed over is good only once this has returned: the digest is known at the end. Raises `PullError`.
        """
        algorithm, _, wanted = digest.partition(":")
        if algorithm not in ("sha256", "sha512"):
            raise PullError(f"the digest {digest} is not supported")
        computed = hashlib.new(algorithm)
        received = 0
        for attempt in range(_TRIES):
            headers = {"Range": f"bytes={received}-"} if received else {}
            try:
                async with self._get(f"/blobs/{digest}", headers) as response:
                    # A server that knows no ranges begins again: what is here already is passed over.
                    known = received if response.status != 206 else 0
                    async for chunk in response.content.iter_chunked(_CHUNK):
                        fresh, known = chunk[known:], max(0, known - len(chunk))
                        if fresh:
                            computed.update(fresh)
                            received += len(fresh)
                            await write(fresh)
                break
            except (aiohttp.ClientPayloadError, aiohttp.ClientConnectionError):
                if attempt == _TRIES - 1:
                    raise
        if computed.hexdigest() != wanted:
            raise PullError(
                f"what the registry sent for {digest} is something else: {algorithm}:{computed.hexdigest()}"
            )

    async def _manifest(self, target: str) -> tuple[str, dict[str, Any], bytes]:
        async with self._get(f"/manifests/{target}", {"Accept": ", ".join(_MANIFESTS)}) as response:
            raw = await _body(response)
        digest = f"sha256:{hashlib.sha256(raw).hexdigest()}"
        if ":" in target:
            _check(raw, target)
            digest = target
        try:
            document = msgspec.json.decode(raw)
        except msgspec.DecodeError as error:
            raise PullError(f"the manifest is not valid JSON: {error}") from None
        if not isinstance(document, dict):
            raise PullError("the manifest is not an object")
        return digest, document, raw

    def _get(self, path: str, headers: dict[str, str] | None = None) -> _Request:
        return _Request(self, path, headers or {})

    async def open(self, path: str, headers: dict[str, str]) -> aiohttp.ClientResponse:
        """A GET, logged in where the registry asks for it. Raises `PullError`."""
        for attempt in (1, 2):
            if self._authorization is not None:
                headers = {**headers, "Authorization": self._authorization}
            try:
                response = await self._session.get(self._base + path, headers=headers)
            except aiohttp.ClientConnectorError as error:
                raise PullError(
                    f"failed to do request: Get {self._base}{path}: {error.os_error.strerror or error}"
                ) from None
            if response.status < 400:
                return response
            raw = await response.content.read(65536)
            challenge = response.headers.get("WWW-Authenticate", "")
            response.release()
            if response.status == 401 and attempt == 1:
                await self._log_in(challenge, raw)
                continue
            raise PullError(_reason(response.status, raw, path))
        raise PullError("unauthorized: the registry asks again after a log-in")

    async def _log_in(self, challenge: str, raw: bytes) -> None:
        scheme, _, rest = challenge.partition(" ")
        basic = None
        if self._login is not None:
            text = f"{self._login.username}:{self._login.password}".encode()
            basic = f"Basic {base64.b64encode(text).decode()}"
        if fold(scheme) == "basic":
            if basic is None:
                raise PullError(_reason(401, raw, ""))
            self._authorization = basic
            return
        parameters = dict(_PARAMETER.findall(rest))
        realm = parameters.pop("realm", "")
        if fold(scheme) != "bearer" or not realm.startswith("https://"):
            raise PullError(_reason(401, raw, ""))
        parameters = {
            "service": parameters.get("service", ""),
            "scope": f"repository:{self._reference.repository}:pull",
        }
        headers = {"Authorization": basic} if basic else {}
        try:
            async with self._session.get(realm, params=parameters, headers=headers) as response:
                answer = await response.content.read(1024 * 1024)
                if response.status >= 400:
                    raise PullError(f"failed to authorize: {_reason(response.status, answer, '')}")
        except aiohttp.ClientConnectorError as error:
            raise PullError(f"failed to authorize: {error.os_error.strerror or error}") from None
        token = msgspec.json.decode(answer)
        self._authorization = f"Bearer {token.get('access_token') or token.get('token')}"


class _Request:
    """An answer that is closed at the end of the block."""

    def __init__(self, client: RegistryClient, path: str, headers: dict[str, str]) -> None:
        self._client = client
        self._path = path
        self._headers = headers
        self._response: aiohttp.ClientResponse | None = None

    async def __aenter__(self) -> aiohttp.ClientResponse:
        self._response = await self._client.open(self._path, self._headers)
        return self._response

    async def __aexit__(self, *exc: object) -> None:
        if self._response is not None:
            self._response.release()


async def _body(response: aiohttp.ClientResponse) -> bytes:
    """The whole body, which has a bound. Raises `PullError`."""
    found = bytearray()
    async for chunk in response.content.iter_chunked(_CHUNK):
        found += chunk
        if len(found) > _LIMIT:
            raise PullError(f"what the registry sent is larger than {_LIMIT} bytes")
    return bytes(found)


def _for_platform(entries: list[dict[str, Any]]) -> str | None:
    for entry in entries:
        platform = entry.get("platform") or {}
        if platform.get("os", "linux") == "linux" and platform.get("architecture", GOARCH) == GOARCH:
            digest: str = entry["digest"]
            return digest
    return None


def _check(raw: bytes, digest: str) -> None:
    algorithm, _, wanted = digest.partition(":")
    if algorithm not in ("sha256", "sha512") or hashlib.new(algorithm, raw).hexdigest() != wanted:
        raise PullError(f"what the registry sent for {digest} is something else")


def _reason(status: int, raw: bytes, path: str) -> str:
    """The registry's words: `denied: …`, `manifest unknown: …`."""
    try:
        error = msgspec.json.decode(raw)["errors"][0]
        code = fold(str(error.get("code", ""))).replace("_", " ")
        message = str(error.get("message", ""))
        return message if fold(message).startswith(code) else f"{code}: {message}"
    except (msgspec.DecodeError, KeyError, IndexError, TypeError, AttributeError):
        shown = raw[:200].decode(errors="replace").strip()
        return f"unexpected status {status} from GET {path}: {shown}"
