"""An HTTP request as the kubelet sends it (`pkg/probe/http`), and what its result says."""

from __future__ import annotations

import asyncio
import errno
import os
import ssl

import aiohttp
from multidict import CIMultiDict
from yarl import URL

from cumulet.common.ascii import fold
from cumulet.instances.actions.result import MOST_OUTPUT, VERSION, Result
from cumulet.instances.actions.targets import Targets
from cumulet.instances.model.lifecycle import HttpGet

#: Headers that describe a body, which the request does not have.
_OF_A_BODY = ("content-length", "transfer-encoding", "trailer")
_REDIRECTS = (301, 302, 303, 307, 308)
_MOST_REDIRECTS = 10


async def get(action: HttpGet, address: str, targets: Targets, timeout: float, purpose: str) -> Result:  # noqa: ASYNC109
    """Send the request, and follow redirects to the same host; `purpose` is part of the name that it presents.

    A redirect to another host is a warning. `timeout` is in seconds.
    """
    host = action.host or address
    literal = f"[{host}]" if ":" in host else host
    path = action.path if action.path.startswith("/") else f"/{action.path}"
    try:
        url = URL(f"{fold(action.scheme)}://{literal}:{action.port}{path}")
        async with asyncio.timeout(timeout):
            return await _follow(url, _headers(action, purpose), targets.session(action.host))
    except TimeoutError:
        why = "context deadline exceeded (Client.Timeout exceeded while awaiting headers)"
    except (OSError, ValueError, aiohttp.ClientError) as error:
        why = _words(error)
    return Result("failure", f'Get "{fold(action.scheme)}://{literal}:{action.port}{path}": {why}')


async def _follow(url: URL, headers: CIMultiDict[str], session: aiohttp.ClientSession) -> Result:
    first = url.host
    for _ in range(_MOST_REDIRECTS + 1):
        async with session.get(
            url,
            headers=headers,
            ssl=False,
            allow_redirects=False,
            skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding"),
        ) as response:
            location = response.headers.get("Location", "")
            target = url.join(URL(location)) if location and response.status in _REDIRECTS else None
            if target is None or target.host != first or target.scheme not in ("http", "https"):
                return await _judge(response)
        if URL(location).absolute:
            headers.popall("Host", None)
        url = target
    return Result("failure", f'Get "{url}": stopped after {_MOST_REDIRECTS} redirects')


async def _judge(response: aiohttp.ClientResponse) -> Result:
    if not 200 <= response.status < 400:
        return Result("failure", f"HTTP probe failed with statuscode: {response.status}")
    body = bytearray()
    while len(body) < MOST_OUTPUT and (chunk := await response.content.read(MOST_OUTPUT - len(body))):
        body += chunk
    text = body.decode(errors="replace")
    if response.status >= 300:
        return Result("warning", f"Probe terminated redirects, Response body: {text}")
    return Result("success", text)


def _headers(action: HttpGet, purpose: str) -> CIMultiDict[str]:
    """Return the headers: repeated ones are kept, and an empty one removes a default."""
    headers: CIMultiDict[str] = CIMultiDict()
    for item in action.http_headers:
        if fold(item.name) not in _OF_A_BODY and not (fold(item.name) == "host" and "Host" in headers):
            headers.add(item.name, item.value)
    headers.setdefault("User-Agent", f"kube-{purpose}/{VERSION}")
    headers.setdefault("Accept", "*/*")
    headers["Connection"] = "close"
    for name in ("User-Agent", "Accept", "Host"):
        if not headers.get(name):
            headers.popall(name, None)
    return headers


def _words(error: Exception) -> str:
    """Return what Go's client says about a failure."""
    if isinstance(error, (aiohttp.ClientConnectorSSLError, ssl.SSLError)):
        return "http: server gave HTTP response to HTTPS client" if "WRONG_VERSION" in str(error) else f"tls: {error}"
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return f"dial tcp: lookup {error.host}: no such host"
    if isinstance(error, aiohttp.ClientConnectorError):
        return dial_words(error.host, error.port or 0, error.os_error)
    if isinstance(error, aiohttp.ServerDisconnectedError):
        return "EOF"
    if isinstance(error, OSError) and error.errno == errno.ECONNRESET:
        return "read: connection reset by peer"
    if isinstance(error, aiohttp.ClientResponseError):
        return "net/http: HTTP/1.x transport connection broken: malformed HTTP response"
    return str(error) or type(error).__name__


def dial_words(host: str, port: int, error: OSError) -> str:
    """Return what Go says about a connection that was not established."""
    reason = fold(os.strerror(error.errno)) if error.errno and error.errno in errno.errorcode else str(error)
    if error.errno == errno.EACCES and error.strerror:
        reason = error.strerror
    literal = f"[{host}]" if ":" in host else host
    return f"dial tcp {literal}:{port}: connect: {reason}"
