"""A client that pulls from a registry (OCI Distribution Specification 1.1, "Pull") with the credentials of a group.

The registry's challenge selects the authentication; errors quote the registry's message. Credentials are sent to the
registry, and to the token server that the registry itself names, as in containerd and docker, over TLS only. A host that the
registry redirects to gets no credentials, and its challenges are ignored.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import os
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import NamedTuple

import aiohttp
import msgspec
from yarl import URL

from cumulet.common import bounded, digests
from cumulet.common.ascii import fold
from cumulet.common.digests import Digest
from cumulet.common.egress import RefusedAddressError, https_only
from cumulet.common.image_reference import DOCKER_HUB, DOCKER_HUB_HOST, Reference
from cumulet.instances.images import manifest
from cumulet.instances.images.errors import Fault, PullError
from cumulet.instances.images.image_config import Execution
from cumulet.instances.images.manifest import (
    DOCUMENT_LIMIT,
    IMAGE_LIMIT,
    MANIFEST_TYPES,
    Configuration,
    Descriptor,
    Index,
    Manifest,
)
from cumulet.instances.images.pace import paced
from cumulet.instances.images.platforms import HERE, Platform

_ERROR_LIMIT = 64 * 1024
_TOKEN_LIMIT = 1024 * 1024
_PARAMETER = re.compile(r'([a-zA-Z_]{1,40})="([^"]*)"')
_CHUNK = 256 * 1024
_TRIES = 3
#: Characters of a registry's message that are quoted.
_SHOWN = 500
#: Seconds for a manifest, a configuration, a token or an error, each.
_DOCUMENT_TIME = 120.0
#: Indexes within each other, and manifests, that are read for one image.
_DEPTH, _DOCUMENTS = 4, 16
#: The kinds of failures by the error codes of the OCI Distribution Specification, and by HTTP status.
_CODES = {
    "manifest unknown": Fault.NOT_FOUND,
    "name unknown": Fault.NOT_FOUND,
    "not found": Fault.NOT_FOUND,
    "blob unknown": Fault.BLOB_NOT_FOUND,
    "denied": Fault.DENIED,
    "unauthorized": Fault.UNAUTHORIZED,
    "toomanyrequests": Fault.UNAVAILABLE,
}
_STATUSES = {
    401: Fault.UNAUTHORIZED,
    403: Fault.DENIED,
    404: Fault.NOT_FOUND,
    408: Fault.UNAVAILABLE,
    429: Fault.UNAVAILABLE,
}


class Login(NamedTuple):
    """A user name and password."""

    username: str
    password: str


class Layer(NamedTuple):
    """A layer: `blob` is its archive in the registry, `diff_id` the digest of the unpacked archive."""

    blob: Descriptor
    diff_id: Digest


class Image(NamedTuple):
    """A resolved image: its digest, configuration, layers, the lowest first, and bytes in the registry.

    `platform` is the platform of the configuration if it is another than this machine's.
    """

    digest: Digest
    config: Execution
    layers: list[Layer]
    size: int
    platform: str | None


class RegistryClient:
    """Pulls of one image from one registry."""

    def __init__(self, session: aiohttp.ClientSession, reference: Reference, login: Login | None) -> None:
        self._session = session
        self._reference = reference
        self._login = login
        self._authorization: str | None = None
        self._documents = 0
        #: Whether the registry, or its token server, was given the credentials. Otherwise, anybody can pull the image.
        self.has_logged_in = False
        host = DOCKER_HUB_HOST if reference.registry == DOCKER_HUB else reference.registry
        self._base = URL(f"https://{host}/v2/{reference.repository}")

    @property
    def repository(self) -> str:
        """`registry/repository`, the scope in which a blob is proven."""
        return self._reference.name

    async def resolve(self) -> Image:
        """Return the image for this platform. Raises `PullError`, `aiohttp.ClientError`."""
        digest, raw = await self._manifest(self._reference.target)
        found = manifest.read(raw, str(self._reference))
        size = len(raw)
        if isinstance(found, Index):
            chosen = await self._choose(found, 1)
            if chosen is None:
                others = ", ".join(found.platforms[:10])
                raise PullError(
                    f"no matching manifest for {HERE} in the manifest list entries{f': it has {others}' if others else ''}",
                    Fault.PLATFORM,
                )
            chosen_size, image, configuration = chosen
            size += chosen_size
        else:
            image, configuration = found, await self._configuration(found)
            if Platform(configuration.os).normalized().os != "linux":
                raise PullError(
                    f"the image is for {_platform(configuration)}, and this machine is {HERE}", Fault.PLATFORM
                )
        layers = image.layers or []
        size += image.config.size + sum(item.size for item in layers)
        if size > IMAGE_LIMIT:
            raise PullError(f"the image has {size} bytes, and an image may have {IMAGE_LIMIT}", Fault.LIMIT)
        other = None if configuration.rank() is not None else _platform(configuration)
        return Image(digest, configuration.execution, _layers(layers, configuration), size, other)

    async def _choose(self, index: Index, depth: int) -> tuple[int, Manifest, Configuration] | None:
        """Return the manifest for this machine in an index, or in an index within it, and the bytes of the documents."""
        if (kind := index.artifact) is not None:
            raise manifest.artifact(str(self._reference), kind)
        if depth > _DEPTH:
            raise PullError(f"the image has indexes within indexes, more than {_DEPTH} deep", Fault.LIMIT)
        for entry in index.candidates():
            _, raw = await self._manifest(entry.digest)
            found = manifest.read(raw, str(self._reference))
            if isinstance(found, Index):
                below = await self._choose(found, depth + 1)
                if below is not None:
                    return len(raw) + below[0], *below[1:]
                continue
            is_sure = entry.platform is not None and entry.platform.is_known
            if not is_sure and found.artifact is not None:
                continue  # such as a signature or a bill of materials beside the image
            configuration = await self._configuration(found)
            if is_sure or configuration.rank() is not None:
                return len(raw), found, configuration
        return None

    async def _configuration(self, image: Manifest) -> Configuration:
        """Return the checked configuration of an image. Raises `PullError`."""
        if (kind := image.artifact) is not None:
            raise manifest.artifact(str(self._reference), kind)
        descriptor = image.config
        if descriptor.size > DOCUMENT_LIMIT:
            raise PullError(f"the configuration is larger than {DOCUMENT_LIMIT} bytes", Fault.LIMIT)
        async with self._answer("GET", f"blobs/{descriptor.digest}") as response:
            raw = await _document(response)
        _check(raw, descriptor.digest)
        return manifest.read_configuration(raw, image)

    async def has(self, blob: Descriptor) -> bool:
        """Return whether the registry confirms a blob of this size, for these credentials. Raises `aiohttp.ClientError`."""
        try:
            async with self._answer("HEAD", f"blobs/{blob.digest}") as response:
                return response.content_length in (None, blob.size)
        except PullError:
            return False

    async def download(self, blob: Descriptor, write: Callable[[bytes], Awaitable[None]]) -> None:
        """Pass a blob to `write` in pieces; resume when the connection breaks.

        The data is verified only when this returns, because the digest is known at the end. Raises `PullError`.
        """
        algorithm = digests.algorithm(blob.digest)
        computed = hashlib.new(algorithm)
        received = 0
        for attempt in range(_TRIES):
            headers = {"Range": f"bytes={received}-"} if received else {}
            try:
                async with self._answer("GET", f"blobs/{blob.digest}", headers) as response:
                    # A server without ranges starts again: skip the bytes that were received already.
                    known = received if response.status != 206 else 0
                    async for chunk in paced(response.content.iter_chunked(_CHUNK)):
                        fresh, known = chunk[known:], max(0, known - len(chunk))
                        if fresh:
                            received += len(fresh)
                            if received > blob.size:
                                raise PullError(
                                    f"the registry sends more for {blob.digest} than the {blob.size} bytes of the manifest",
                                    Fault.CORRUPT,
                                )
                            computed.update(fresh)
                            await write(fresh)
                break
            except aiohttp.SocketTimeoutError:
                raise PullError(
                    f"pulling was canceled because of no progress: no data after {received} bytes of {blob.digest}",
                    Fault.INTERRUPTED,
                ) from None
            except (aiohttp.ClientPayloadError, aiohttp.ClientConnectionError):
                if attempt == _TRIES - 1:
                    raise
        if computed.hexdigest() != digests.encoded(blob.digest):
            raise PullError(
                f"the registry sent other content for {blob.digest}: {algorithm}:{computed.hexdigest()}",
                Fault.CORRUPT,
            )
        if received != blob.size:
            raise PullError(
                f"the registry has {received} bytes for {blob.digest}, but the manifest has {blob.size}",
                Fault.CORRUPT,
            )

    async def _manifest(self, target: str) -> tuple[Digest, bytes]:
        self._documents += 1
        if self._documents > _DOCUMENTS:
            raise PullError(f"the index has more than {_DOCUMENTS} entries that may be for {HERE}", Fault.LIMIT)
        async with self._answer("GET", f"manifests/{target}", {"Accept": ", ".join(MANIFEST_TYPES)}) as response:
            raw = await _document(response)
        if raw.lstrip()[:1] == b"<":
            raise PullError("the registry sent a page, not a manifest: a proxy may have answered in its place")
        if digests.is_digest(target):
            digest = digests.parse(target)
            _check(raw, digest)
            return digest, raw
        return digests.of(raw), raw

    @contextlib.asynccontextmanager
    async def _answer(
        self, method: str, path: str, headers: dict[str, str] | None = None
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """Yield a response below 400, after authentication if the registry demands it. Raises `PullError`, `aiohttp.ClientError`."""
        response = await self._open(method, path, headers or {})
        try:
            yield response
        finally:
            response.release()

    async def _open(self, method: str, path: str, headers: dict[str, str]) -> aiohttp.ClientResponse:
        url = self._base / path
        for attempt in (1, 2):
            if self._authorization is not None:
                headers = {**headers, "Authorization": self._authorization}
            response = await self._request(method, url, f"failed to do request: {method.title()} {url}", headers)
            if response.status < 400:
                return response
            raw = await _error(response)
            is_registry = response.url.origin() == url.origin()
            if response.status == 401 and attempt == 1 and is_registry:
                await self._log_in(response.headers.get("WWW-Authenticate", ""), raw)
                continue
            raise _refusal(response.status, raw, f"/{path}")
        raise PullError("unauthorized: the registry demands authentication again", Fault.UNAUTHORIZED)

    async def _request(self, method: str, url: URL, failure: str, headers: dict[str, str]) -> aiohttp.ClientResponse:
        try:
            return await self._session.request(
                method, url, headers=headers, allow_redirects=True, middlewares=(https_only,)
            )
        except aiohttp.ClientConnectorError as error:
            raise _no_connection(error, failure) from None
        except aiohttp.ServerTimeoutError as error:
            raise PullError(f"{failure}: {str(error)[:_SHOWN]}", Fault.UNREACHABLE) from None
        except aiohttp.InvalidURL as error:
            raise PullError(f"{failure}: {str(error)[:_SHOWN]}") from None

    async def _log_in(self, challenge: str, raw: bytes) -> None:
        scheme, _, rest = challenge.partition(" ")
        basic = None
        if self._login is not None:
            text = f"{self._login.username}:{self._login.password}".encode()
            basic = f"Basic {base64.b64encode(text).decode()}"
        if fold(scheme) == "basic":
            if basic is None:
                raise _refusal(401, raw, "")
            self._authorization = basic
            self.has_logged_in = True
            return
        parameters = dict(_PARAMETER.findall(rest))
        if fold(scheme) != "bearer":
            raise _refusal(401, raw, "")
        try:
            realm = URL(parameters.get("realm", ""))
            is_usable = realm.scheme == "https" and bool(realm.host) and not realm.user
        except ValueError:
            is_usable = False
        if not is_usable:
            raise PullError("failed to authorize: the registry names a token server that is not an https address")
        query = {
            "service": parameters.get("service", ""),
            "scope": f"repository:{self._reference.repository}:pull",
        }
        headers = {"Authorization": basic} if basic else {}
        self.has_logged_in = basic is not None
        response = await self._request("GET", realm.update_query(query), "failed to authorize", headers)
        if response.status >= 400:
            refusal = _refusal(response.status, await _error(response), "")
            # Whatever a token server says about credentials is about them, also that they are not found.
            fault = refusal.fault if refusal.fault in (Fault.DENIED, Fault.UNAVAILABLE) else Fault.UNAUTHORIZED
            raise PullError(f"failed to authorize: {refusal}", fault)
        try:
            answer = await _document(response, _TOKEN_LIMIT)
        finally:
            response.release()
        found = manifest.decode(answer, manifest.Token, "the token server's answer")
        token = found.access_token or found.token
        if not token:
            raise PullError("failed to authorize: the token server gave no token", Fault.UNAUTHORIZED)
        self._authorization = f"Bearer {token}"


def _layers(blobs: list[Descriptor], configuration: Configuration) -> list[Layer]:
    return [Layer(blob, diff_id) for blob, diff_id in zip(blobs, configuration.diff_ids, strict=True)]


def _platform(configuration: Configuration) -> str:
    return str(Platform(configuration.os, configuration.architecture, configuration.variant))


async def _document(response: aiohttp.ClientResponse, limit: int = DOCUMENT_LIMIT) -> bytes:
    """Return a whole body. Raises `PullError`, `aiohttp.ClientError`."""
    try:
        async with asyncio.timeout(_DOCUMENT_TIME):
            return await bounded.read(response, limit)
    except bounded.TooLargeError as error:
        raise PullError(str(error), Fault.LIMIT) from None
    except TimeoutError:
        response.close()
        raise PullError(
            f"pulling was canceled because of no progress: a document took more than {_DOCUMENT_TIME:.0f} s",
            Fault.INTERRUPTED,
        ) from None


async def _error(response: aiohttp.ClientResponse) -> bytes:
    """Return the beginning of an error's body, and release the response. Raises `aiohttp.ClientError`."""
    try:
        async with asyncio.timeout(_DOCUMENT_TIME):
            return await bounded.beginning(response, _ERROR_LIMIT)
    except TimeoutError:
        response.close()
        return b""
    finally:
        response.release()


def _check(raw: bytes, digest: Digest) -> None:
    if digests.of(raw, digests.algorithm(digest)) != digest:
        raise PullError(f"the registry sent other content for {digest}", Fault.CORRUPT)


def _no_connection(error: aiohttp.ClientConnectorError, failure: str) -> PullError:
    """Return the error for a connection that was not made."""
    if isinstance(error, (aiohttp.ClientConnectorCertificateError, aiohttp.ClientConnectorSSLError)):
        return PullError(f"{failure}: {str(error)[:_SHOWN]}", Fault.CERTIFICATE)
    cause = error.os_error
    fault = Fault.ADDRESS if isinstance(cause, RefusedAddressError) else Fault.UNREACHABLE
    reason = cause.strerror or (os.strerror(cause.errno) if cause.errno else str(error))
    return PullError(f"{failure}: {reason}", fault)


def _refusal(status: int, raw: bytes, path: str) -> PullError:
    """Return the error for a response, with the registry's message: `denied: …`, `manifest unknown: …`."""
    code = ""
    try:
        error = msgspec.json.decode(raw)["errors"][0]
        code = fold(str(error.get("code") or "")).replace("_", " ")
        message = str(error.get("message") or "")
        found = message if fold(message).startswith(code) and message else f"{code}: {message}"
    except (msgspec.DecodeError, ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError):
        found = f"unexpected status {status} from GET {path}: {raw[:200].decode(errors='replace').strip()}"
    text = "".join(character if character.isprintable() else " " for character in found[:_SHOWN])
    by_status = Fault.UNAVAILABLE if status >= 500 else _STATUSES.get(status, Fault.OTHER)
    fault = _CODES.get(code, by_status)
    if fault is Fault.NOT_FOUND and path.startswith("/blobs/"):
        fault = Fault.BLOB_NOT_FOUND
    return PullError(text, fault)
