"""The client for webhooks: TLS with the webhook's own authority, a URL or a service, a timeout."""

from __future__ import annotations

import base64
import functools
import ssl
from urllib.parse import urlsplit

import aiohttp
import msgspec

from cumulet.common import bounded
from cumulet.common.egress import Egress
from cumulet.common.kubernetes.objects import Object
from cumulet.kube.apimachinery.status import ApiError
from cumulet.kube.clients.service_resolver import resolve
from cumulet.kube.store import Store

_ANSWER_LIMIT = 64 * 1024 * 1024


class CallError(Exception):
    """The call of a webhook failed, or its response is invalid."""


class WebhookClient:
    """Calls webhooks, and keeps their connections."""

    def __init__(self, store: Store, egress: Egress) -> None:
        self._store = store
        self._session = egress.session()

    async def close(self) -> None:
        """Close the connections."""
        await self._session.close()

    async def post(self, config: Object, document: Object, seconds: int) -> Object:
        """Post a document and return the response, an object; `config` is a `WebhookClientConfig`.

        Raises `CallError`.
        """
        try:
            url, name, shown = self._where(config)
            context = _context(config.get("caBundle") or "")
        except ApiError as error:
            raise CallError(str(error)) from None
        except (ValueError, ssl.SSLError) as error:
            raise CallError(f"unable to load root certificates: {error}") from None
        start = f'Post "{shown}?timeout={seconds}s"'
        try:
            async with self._session.post(
                url,
                params={"timeout": f"{seconds}s"},
                data=msgspec.json.encode(document),
                headers={"Content-Type": "application/json", "Accept": "application/json", "Host": name},
                ssl=context,
                server_hostname=name.partition(":")[0],
                timeout=aiohttp.ClientTimeout(total=seconds),
                allow_redirects=False,
            ) as response:
                raw = await bounded.read(response, _ANSWER_LIMIT)
                if response.status != 200:
                    text = raw[:1000].decode(errors="replace").strip()
                    raise CallError(f"the server responded with {response.status}: {text}")
        except TimeoutError:
            raise CallError(f"{start}: context deadline exceeded") from None
        except aiohttp.ClientConnectorError as error:
            raise CallError(f"{start}: {error.os_error.strerror or error.os_error}") from None
        except aiohttp.ClientError as error:
            raise CallError(f"{start}: {error}") from None
        try:
            return msgspec.json.decode(raw, type=Object)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise CallError(f"cannot decode the response: {error}") from None

    def _where(self, config: Object) -> tuple[str, str, str]:
        """Return the URL to call, the value of `Host`, and the URL for messages. Raises `ApiError`."""
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
    if not bundle.strip():
        return ssl.create_default_context()
    return ssl.create_default_context(cadata=base64.b64decode(bundle).decode("ascii"))
