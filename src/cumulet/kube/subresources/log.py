"""A container's log, streamed from its node's kubelet."""

from __future__ import annotations

import base64
import contextlib

import aiohttp
from aiohttp import web
from yarl import URL

from cumulet.common import bounded, clock
from cumulet.common.ascii import fold, is_digits
from cumulet.common.kubernetes.negotiation import accept_websocket
from cumulet.common.kubernetes.objects import Object
from cumulet.common.tasks import until_one_ends
from cumulet.kube.apimachinery.status import ApiError, Cause, bad_request, invalid
from cumulet.kube.clients.kubelet import Kubelet
from cumulet.kube.http.options import is_set

_FLAGS = ("follow", "previous", "timestamps")
#: Numbers with their minimum.
_NUMBERS = {"tailLines": 0, "limitBytes": 1, "sinceSeconds": 1}


async def log(kubelet: Kubelet, request: web.BaseRequest, pod: Object) -> web.StreamResponse:
    """Stream a log. A pod without a node has an empty log. Raises `ApiError` 400, 404, 422 and 500."""
    metadata = pod["metadata"]
    options = _options(request, metadata["name"])
    container = kubelet.container(request, pod)
    if not pod["spec"].get("nodeName"):
        return web.Response(content_type="text/plain")
    path = f"/containerLogs/{metadata['namespace']}/{metadata['name']}/{container}"
    url = URL(kubelet.address(pod) + path).with_query(options)
    try:
        async with kubelet.session.get(url, allow_redirects=False) as upstream:
            if upstream.status >= 300:
                text = (await bounded.beginning(upstream, 2048)).decode(errors="replace")
                raise _failure(upstream.status, text.strip())
            if fold(request.headers.get("Upgrade", "")) == "websocket":
                return await _through_websocket(request, upstream)
            response = web.StreamResponse(headers={"Content-Type": "text/plain"})
            await response.prepare(request)
            async for chunk in upstream.content.iter_any():
                await response.write(chunk)
            await response.write_eof()
            return response
    except aiohttp.ClientConnectionError as error:
        raise ApiError(500, "InternalError", f'Get "{url}": {error}', {}) from None


async def _through_websocket(request: web.BaseRequest, upstream: aiohttp.ClientResponse) -> web.StreamResponse:
    """Send a log as messages (apiserver, `wsstream.Reader`): bytes, or base64 text where the client selects that."""
    try:
        socket = await accept_websocket(request, ("binary.k8s.io", "base64.binary.k8s.io"))
    except web.HTTPForbidden as error:
        raise ApiError(403, "Forbidden", error.text or error.reason, {}) from None
    in_text = (socket.ws_protocol or "").startswith("base64.")

    async def send() -> None:
        async for chunk in upstream.content.iter_any():
            await (socket.send_str(base64.b64encode(chunk).decode()) if in_text else socket.send_bytes(chunk))

    async def until_closed() -> None:
        async for _ in socket:  # messages from the client are ignored
            pass

    with contextlib.suppress(ConnectionError):
        await until_one_ends(send(), until_closed())
        await socket.close()
    return socket


def _options(request: web.BaseRequest, name: str) -> dict[str, str]:
    """Return `PodLogOptions` (core/v1) from the query, checked."""
    query, causes = request.query, []
    options = {field: "true" for field in _FLAGS if is_set(request.query, field)}
    for field, least in _NUMBERS.items():
        if field not in query:
            continue
        text = query[field]
        digits = text.removeprefix("-").removeprefix("+") if text[:1] in ("-", "+") else text
        if not is_digits(digits):
            raise bad_request(f'strconv.ParseInt: parsing "{text}": invalid syntax')
        if len(digits) > 18:
            raise bad_request(f'strconv.ParseInt: parsing "{text}": value out of range')
        options[field] = str(number := int(text))
        if number < least:
            bound = "greater than 0" if least else "greater than or equal to 0"
            causes.append(Cause(field, "FieldValueInvalid", f"Invalid value: {number}: must be {bound}"))
    if "sinceTime" in query:
        try:
            options["sinceTime"] = clock.rfc3339(clock.parse(query["sinceTime"]))
        except ValueError:
            raise bad_request(f'parsing time "{query["sinceTime"]}" as "2006-01-02T15:04:05Z07:00"') from None
        if "sinceSeconds" in query:
            why = "Forbidden: at most one of `sinceTime` or `sinceSeconds` may be specified"
            causes = [cause for cause in causes if cause.field != "sinceSeconds"]
            causes.append(Cause("[]", "FieldValueForbidden", why))
    if "stream" in query:
        causes.append(Cause("stream", "FieldValueForbidden", "Forbidden: may not be specified"))
    if causes:
        raise invalid("", "PodLogOptions", name, causes)
    return options


def _failure(status: int, text: str) -> ApiError:
    """Return a kubelet's error as the API server's own."""
    if status == 400:
        return bad_request(text)
    if status == 500:
        return ApiError(500, "InternalError", f"Internal error occurred: {text}", {"causes": [{"message": text}]})
    return ApiError(status, "NotFound" if status == 404 else "InternalError", text, {})
