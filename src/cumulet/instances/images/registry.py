"""A client that pulls from a registry (OCI Distribution Specification 1.1, "Pull") with the credentials of a group.

The registry's challenge selects the authentication; errors quote the registry's message. Credentials are sent to the
registry, and to the token server that the registry itself names, as in containerd and docker, over TLS only. A host that the
registry redirects to gets no credentials, and its challenges are ignored.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import NamedTuple

import aiohttp
import msgspec
from yarl import URL

from cumulet.common import bounded, digests
from cumulet.common.ascii import fold
from cumulet.common.digests import Digest
from cumulet.common.egress import https_only
from cumulet.instances.images import manifest
from cumulet.instances.images.architecture import GOARCH
from cumulet.instances.images.image_config import Execution
from cumulet.instances.images.manifest import DOCUMENT_LIMIT, IMAGE_LIMIT, Configuration, Descriptor, Index
from cumulet.instances.images.reference import Reference

_MANIFESTS = (
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
)
_ERROR_LIMIT = 64 * 1024
_TOKEN_LIMIT = 1024 * 1024
_PARAMETER = re.compile(r'([a-zA-Z_]{1,40})="([^"]*)"')
_CHUNK = 256 * 1024
_TRIES = 3
#: Characters of a registry's message that are quoted.
_SHOWN = 500


class PullError(Exception):
    """The pull failed; the message is the registry's own reason."""


class Login(NamedTuple):
    """A user name and password."""

    username: str
    password: str


class Layer(NamedTuple):
    """A layer: `blob` is its archive in the registry, `diff_id` the digest of the unpacked archive."""

    blob: Descriptor
    diff_id: Digest


class Image(NamedTuple):
    """A resolved image: its digest, configuration, layers, the lowest first, and bytes in the registry."""

    digest: Digest
    config: Execution
    layers: list[Layer]
    size: int


class RegistryClient:
    """Pulls of one image from one registry."""

    def __init__(self, session: aiohttp.ClientSession, reference: Reference, login: Login | None) -> None:
        self._session = session
        self._reference = reference
        self._login = login
        self._authorization: str | None = None
        host = "registry-1.docker.io" if reference.registry == "docker.io" else reference.registry
        self._base = URL(f"https://{host}/v2/{reference.repository}")

    @property
    def repository(self) -> str:
        """`registry/repository`, the scope in which a blob is proven."""
        return f"{self._reference.registry}/{self._reference.repository}"

    async def resolve(self) -> Image:
        """Return the image for this platform. Raises `PullError`, `DocumentError`, `aiohttp.ClientError`."""
        digest, raw = await self._manifest(self._reference.target)
        size = len(raw)
        found = manifest.read(raw)
        if isinstance(found, Index):
            chosen = found.for_this_machine()
            if chosen is None:
                raise PullError(f"no matching manifest for linux/{GOARCH} in the manifest list entries")
            _, raw = await self._manifest(chosen)
            size += len(raw)
            found = manifest.read(raw)
            if isinstance(found, Index):
                raise PullError("an entry of the index is an index itself")
        configuration = manifest.read_configuration(await self._configuration(found.config), found)
        size += found.config.size + sum(item.size for item in found.layers)
        if size > IMAGE_LIMIT:
            raise PullError(f"the image has {size} bytes, and an image may have {IMAGE_LIMIT}")
        return Image(digest, configuration.execution, _layers(found.layers, configuration), size)

    async def _configuration(self, descriptor: Descriptor) -> bytes:
        if descriptor.size > DOCUMENT_LIMIT:
            raise PullError(f"the configuration is larger than {DOCUMENT_LIMIT} bytes")
        async with self._answer("GET", f"blobs/{descriptor.digest}") as response:
            raw = await bounded.read(response, DOCUMENT_LIMIT)
        _check(raw, descriptor.digest)
        return raw

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
                    async for chunk in response.content.iter_chunked(_CHUNK):
                        fresh, known = chunk[known:], max(0, known - len(chunk))
                        if fresh:
                            received += len(fresh)
                            if received > blob.size:
                                raise PullError(
                                    f"the registry sends more for {blob.digest} than the {blob.size} bytes of the manifest"
                                )
                            computed.update(fresh)
                            await write(fresh)
                break
            except (aiohttp.ClientPayloadError, aiohttp.ClientConnectionError):
                if attempt == _TRIES - 1:
                    raise
        if computed.hexdigest() != digests.encoded(blob.digest):
            raise PullError(f"the registry sent other content for {blob.digest}: {algorithm}:{computed.hexdigest()}")
        if received != blob.size:
            raise PullError(f"the registry has {received} bytes for {blob.digest}, but the manifest has {blob.size}")

    async def _manifest(self, target: str) -> tuple[Digest, bytes]:
        async with self._answer("GET", f"manifests/{target}", {"Accept": ", ".join(_MANIFESTS)}) as response:
            raw = await bounded.read(response, DOCUMENT_LIMIT)
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
            try:
                raw = await bounded.beginning(response, _ERROR_LIMIT)
            finally:
                response.release()
            is_registry = response.url.origin() == url.origin()
            if response.status == 401 and attempt == 1 and is_registry:
                await self._log_in(response.headers.get("WWW-Authenticate", ""), raw)
                continue
            raise PullError(_reason(response.status, raw, f"/{path}"))
        raise PullError("unauthorized: the registry demands authentication again")

    async def _request(self, method: str, url: URL, failure: str, headers: dict[str, str]) -> aiohttp.ClientResponse:
        try:
            return await self._session.request(
                method, url, headers=headers, allow_redirects=True, middlewares=(https_only,)
            )
        except aiohttp.ClientConnectorError as error:
            raise PullError(f"{failure}: {error.os_error.strerror or error}") from None
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
                raise PullError(_reason(401, raw, ""))
            self._authorization = basic
            return
        parameters = dict(_PARAMETER.findall(rest))
        if fold(scheme) != "bearer":
            raise PullError(_reason(401, raw, ""))
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
        response = await self._request("GET", realm.update_query(query), "failed to authorize", headers)
        try:
            if response.status >= 400:
                answer = await bounded.beginning(response, _ERROR_LIMIT)
                raise PullError(f"failed to authorize: {_reason(response.status, answer, '')}")
            answer = await bounded.read(response, _TOKEN_LIMIT)
        finally:
            response.release()
        found = manifest.decode(answer, manifest.Token, "the token server's answer")
        token = found.access_token or found.token
        if not token:
            raise PullError("failed to authorize: the token server gave no token")
        self._authorization = f"Bearer {token}"


def _layers(blobs: list[Descriptor], configuration: Configuration) -> list[Layer]:
    return [Layer(blob, diff_id) for blob, diff_id in zip(blobs, configuration.rootfs.diff_ids, strict=True)]


def _check(raw: bytes, digest: Digest) -> None:
    if digests.of(raw, digests.algorithm(digest)) != digest:
        raise PullError(f"the registry sent other content for {digest}")


def _reason(status: int, raw: bytes, path: str) -> str:
    """Return the registry's message: `denied: …`, `manifest unknown: …`."""
    try:
        error = msgspec.json.decode(raw)["errors"][0]
        code = fold(str(error.get("code", ""))).replace("_", " ")
        message = str(error.get("message", ""))
        found = message if fold(message).startswith(code) else f"{code}: {message}"
    except (msgspec.DecodeError, KeyError, IndexError, TypeError, AttributeError, RecursionError):
        found = f"unexpected status {status} from GET {path}: {raw[:200].decode(errors='replace').strip()}"
    return "".join(character if character.isprintable() else " " for character in found[:_SHOWN])
