"""Calling a webhook: over TLS that its own authority vouches for, to an address or to a service, for a time."""

from __future__ import annotations

import base64
import functools
import ssl
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import msgspec

from cumulet.kube.endpoints import resolve
from cumulet.kube.status import ApiError
from cumulet.kube.store import Store

Object = dict[str, Any]

_ANSWER_LIMIT = 8 * 1024 * 1024
_TIMEOUT = 10


class CallError(Exception):
    """A webhook could not be asked, or its answer is not one."""


class Caller:
    """Keeps connections to webhooks."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._session: aiohttp.ClientSession | None = None

    async def close(self) -> None:
        """Close the connections."""
        if self._session is not None:
            await self._session.close()

    async def call(self, webhook: Object, question: Object) -> Object:
        """The response to an `AdmissionReview`. Raises `CallError`."""
        if "v1" not in (webhook.get("admissionReviewVersions") or ()):
            raise CallError("webhook does not accept known AdmissionReview versions (v1)")
        seconds = webhook.get("timeoutSeconds") or _TIMEOUT
        try:
            url, name, shown = self._where(webhook.get("clientConfig") or {})
            context = _context((webhook.get("clientConfig") or {}).get("caBundle", ""))
        except ApiError as error:
            raise CallError(f"failed to call webhook: {error}") from None
        except (ValueError, ssl.SSLError) as error:
            raise CallError(f"unable to load root certificates: {error}") from None
        if self._session is None:
            self._session = aiohttp.ClientSession()
        shown = f'failed to call webhook: Post "{shown}?timeout={seconds}s"'
        try:
            async with self._session.post(
                url,
                params={"timeout": f"{seconds}s"},
                data=msgspec.json.encode(question),
                headers={"Content-Type": "application/json", "Accept": "application/json", "Host": name},
                ssl=context,
                server_hostname=name.partition(":")[0],
                timeout=aiohttp.ClientTimeout(total=seconds),
                allow_redirects=False,
            ) as response:
                raw = await response.content.read(_ANSWER_LIMIT)
                if response.status != 200:
                    said = raw[:1000].decode(errors="replace").strip()
                    raise CallError(f"failed to call webhook: the server responded with {response.status}: {said}")
        except TimeoutError:
            raise CallError(f"{shown}: context deadline exceeded") from None
        except aiohttp.ClientError as error:
            raise CallError(f"{shown}: {error}") from None
        return _response(raw, question["request"]["uid"])

    def _where(self, config: Object) -> tuple[str, str, str]:
        """The URL to call, the host that it is, and the URL as a user knows it. Raises `ApiError`."""
        if url := config.get("url"):
            return url, urlsplit(url).netloc, url
        service = config.get("service") or {}
        namespace, name = service.get("namespace", ""), service.get("name", "")
        port, path = service.get("port") or 443, "/" + (service.get("path") or "").lstrip("/")
        host = f"{name}.{namespace}.svc"
        address, number = resolve(self._store, namespace, name, port)
        return f"https://{address}:{number}{path}", host, f"https://{host}:{port}{path}"


@functools.lru_cache(maxsize=64)
def _context(bundle: str) -> ssl.SSLContext:
    if not bundle:
        return ssl.create_default_context()
    return ssl.create_default_context(cadata=base64.b64decode(bundle).decode("ascii"))


def _response(raw: bytes, uid: str) -> Object:
    try:
        answer = msgspec.json.decode(raw, type=dict[str, Any])
        response = answer["response"]
        if not isinstance(response, dict) or not isinstance(response.get("allowed"), bool):
            raise CallError("received invalid webhook response: webhook response was absent or does not say allowed")
    except (msgspec.DecodeError, KeyError) as error:
        raise CallError(f"received invalid webhook response: {error}") from None
    if response.get("uid") != uid:
        why = f"expected response.uid={uid!r}, got {response.get('uid')!r}"
        raise CallError(f"received invalid webhook response: {why}")
    return response
