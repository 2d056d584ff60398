"""The form of a response: plain, table, partial metadata or another media type, compressed if accepted."""

from __future__ import annotations

import functools
import gzip
import time
from collections.abc import Iterator, Mapping, Sequence
from email.utils import formatdate
from typing import NamedTuple

import msgspec
from aiohttp import HttpVersion11, web

from cumulet.common import clock
from cumulet.common.ascii import fold
from cumulet.common.kubernetes.objects import Object
from cumulet.kube.apimachinery.status import ApiError, bad_request
from cumulet.kube.catalog.builtin_conversion import from_stored
from cumulet.kube.catalog.resources import Row
from cumulet.kube.codec import PROTOBUF, YAML, ProtobufError, encode_protobuf
from cumulet.kube.schema.validation.field_errors import quoted
from cumulet.kube.store import Stored
from cumulet.kube.tables import Include, to_table

_JSON = "application/json"
_WARNINGS = 16
_WARNING_LENGTH = 4096
_COMPRESS_FROM = 128 * 1024


class Form(NamedTuple):
    """The form that the client prefers: `Table`, `PartialObjectMetadata` or the object itself."""

    shape: str
    include: Include
    #: Empty for JSON, else the media type to use instead.
    media: str = ""


def form_of(request: web.BaseRequest) -> Form:
    """Read the Accept header and `includeObject`. Raises `ApiError` 400 and 406."""
    include = request.query.get("includeObject", "") if request.query_string else ""
    return _form(request.headers.get("Accept", ""), include or "Metadata")


@functools.lru_cache(256)
def _form(accept: str, include: str) -> Form:
    if media := _media(accept):
        return Form("", "Metadata", media)
    others = False
    for part in accept.split(","):
        name, *rest = part.split(";")
        parameters = dict(item.strip().partition("=")[::2] for item in rest)
        if parameters.get("g") == "meta.k8s.io" and parameters.get("v") == "v1":
            shape = parameters.get("as", "").removesuffix("List")
            if shape in ("Table", "PartialObjectMetadata"):
                return Form(shape, _checked(include, shape))
        is_json = fold(name.strip()) in (_JSON, "*/*")
        if is_json and "as" not in parameters:
            return Form("", "Metadata")
        # Tables of v1beta1 are not served: the client gets the object itself.
        others = others or not is_json or parameters.get("v") == "v1beta1"
    if accept and not others:
        raise _unacceptable()
    return Form("", "Metadata")


def check_plain(request: web.BaseRequest) -> None:
    """Refuse a client that accepts only a table or partial metadata. Raises `ApiError` 406."""
    accept = request.headers.get("Accept", "")
    if accept and all(";as=" in part.replace(" ", "") for part in accept.split(",")):
        raise _unacceptable()


def _checked(include: str, shape: str) -> Include:
    if shape == "Table" and include not in ("Metadata", "Object", "None"):
        why = "must be 'Metadata', 'Object', 'None', or empty"
        given = f"includeObject: Invalid value: {quoted(include[:64])}: {why}"
        raise bad_request(f"Unable to convert to Table as requested: {given}")
    return include if include in ("Object", "None") else "Metadata"  # type: ignore[return-value]


def _unacceptable() -> ApiError:
    known = f"{_JSON}, {YAML}, {PROTOBUF}"
    return ApiError(406, "NotAcceptable", f"only the following media types are accepted: {known}")


def media_of(request: web.BaseRequest) -> str:
    """Return the media type for a client that accepts no JSON: `PROTOBUF` or `YAML`; empty where JSON will do.

    Raises `ApiError` 406 where none of the accepted types is served.
    """
    return _media(request.headers.get("Accept", ""))


@functools.lru_cache(256)
def _media(accepted: str) -> str:
    if not accepted or "json" in accepted or "*" in accepted:
        return ""
    for part in accepted.split(","):
        media = fold(part.partition(";")[0].strip())
        if media in (PROTOBUF, YAML):
            return media
    raise _unacceptable()


def _as(media: str, body: bytes) -> bytes:
    document = msgspec.json.decode(body)
    if media == YAML:
        import yaml

        return yaml.safe_dump(document, default_flow_style=False).encode()
    try:
        return encode_protobuf(document)
    except ProtobufError:
        why = f"only the following media types are accepted: {_JSON}, {YAML}"
        raise ApiError(406, "NotAcceptable", why, {}) from None


def head(row: Row) -> bytes:
    """Return the JSON in front of a stored object's own first field."""
    return _head(row.kind, row.api_version)


@functools.lru_cache(256)
def _head(kind: str, api_version: str) -> bytes:
    return f'{{"kind":"{kind}","apiVersion":"{api_version}",'.encode()


def shaped(row: Row, stored: Stored, form: Form) -> bytes:
    """Return one object as JSON, in the client's form."""
    if form.shape == "Table":
        table = to_table(row, [_loaded(row, stored)], clock.now(), form.include)
        table["metadata"]["resourceVersion"] = str(stored.revision)
        return msgspec.json.encode(table)
    if form.shape == "PartialObjectMetadata":
        return _partial(stored)
    if row.hub is not None:
        return head(row) + msgspec.json.encode(from_stored(row, stored.load()))[1:]
    return head(row) + own_fields(row, stored)


def _loaded(row: Row, stored: Stored) -> Object:
    return stored.load() if row.custom is None else row.custom.filled(stored).load()


def own_fields(row: Row, stored: Stored) -> bytes:
    """Return an object's JSON after its kind and version; objects of a custom kind may be stored with both."""
    if row.custom is not None and row.custom.is_form_of(stored):
        return row.custom.fields_of(row.custom.filled(stored))
    return stored.body[1:]


def shaped_list(row: Row, items: Sequence[Stored], metadata: Mapping[str, object], form: Form) -> bytes:
    """Return a list as JSON; the items of a plain one are joined as they are stored."""
    if form.shape == "Table":
        table = to_table(row, [_loaded(row, item) for item in items], clock.now(), form.include)
        table["metadata"] = metadata
        return msgspec.json.encode(table)
    if form.shape == "PartialObjectMetadata":
        kind, api_version = "PartialObjectMetadataList", "meta.k8s.io/v1"
        bodies = [_partial(item) for item in items]
    else:
        kind, api_version = f"{row.kind}List", row.api_version
        bodies = _whole(row, items)
    top = f'{{"kind":"{kind}","apiVersion":"{api_version}","metadata":'.encode()
    return b"".join((top, msgspec.json.encode(metadata), b',"items":[', b",".join(bodies), b"]}"))


def _whole(row: Row, items: Sequence[Stored]) -> list[bytes]:
    if row.custom is not None:
        return [head(row) + own_fields(row, item) for item in items]
    if row.hub is None:
        return [item.body for item in items]
    return [msgspec.json.encode(from_stored(row, item.load())) for item in items]


class Ready(web.StreamResponse):
    """A JSON response whose bytes are already there, in pieces; written at once, with few headers."""

    def __init__(self, *pieces: bytes, status: int = 200, warnings: Sequence[str] = ()) -> None:
        super().__init__(status=status)
        self._pieces = pieces
        self._warnings = (
            "".join(f"Warning: {value}\r\n" for value in _warning_values(warnings)).encode() if warnings else b""
        )
        self._keeps_alive = False

    @property
    def keep_alive(self) -> bool:
        """Return whether the connection is used again."""
        return self._keeps_alive

    async def prepare(self, request: web.BaseRequest) -> None:
        """Write the response. Raises `ConnectionError` where the client is gone."""
        transport = request.transport
        if transport is None or transport.is_closing():
            raise ConnectionResetError
        self._keeps_alive = request.keep_alive
        lines = _CONNECTION[request.version >= HttpVersion11, self._keeps_alive] + self._warnings
        head = _HEAD % (_STATUS[self.status], sum(map(len, self._pieces)), _date(int(time.time())), lines)
        transport.write(head if request.method == "HEAD" else b"".join((head, *self._pieces)))
        if request.protocol.writing_paused:
            await request.writer.drain()

    async def write_eof(self, data: bytes = b"") -> None:
        """Do nothing: `prepare` wrote everything."""


_STATUS = {200: b"200 OK", 201: b"201 Created"}
_HEAD = b"HTTP/1.1 %b\r\nContent-Type: application/json\r\nContent-Length: %d\r\nDate: %b\r\n%b\r\n"
#: By HTTP/1.1 or not, and by whether the connection is used again.
_CONNECTION = {
    (True, True): b"",
    (True, False): b"Connection: close\r\n",
    (False, True): b"Connection: keep-alive\r\n",
    (False, False): b"",
}


@functools.lru_cache(1)
def _date(second: int) -> bytes:
    return formatdate(second, usegmt=True).encode()


def respond_object(request: web.BaseRequest, row: Row, stored: Stored) -> web.StreamResponse:
    """Return one object in the form that the client accepts."""
    form = form_of(request)
    if form.shape or form.media or row.hub is not None or len(stored.body) >= _COMPRESS_FROM:
        return respond(request, shaped(row, stored, form))
    return Ready(head(row), own_fields(row, stored))


def respond_written(
    request: web.BaseRequest,
    row: Row,
    obj: Object,
    stored: Stored | None,
    status: int,
    warnings: Sequence[str],
) -> web.StreamResponse:
    """Return an object that was written; `stored` is what the store now has under that name."""
    is_same = stored is not None and obj["metadata"].get("resourceVersion") == str(stored.revision)
    is_plain = row.hub is None and not media_of(request)
    is_plain = is_plain and (row.custom is None or row.custom.storage is row.custom)
    if stored is None or not is_same or not is_plain or len(stored.body) >= _COMPRESS_FROM:
        whole = {"kind": row.kind, "apiVersion": row.api_version, **from_stored(row, obj)}
        return encode(request, whole, status, warnings)
    return Ready(head(row), own_fields(row, stored), status=status, warnings=warnings)


def respond(request: web.BaseRequest, body: bytes, status: int = 200, warnings: Sequence[str] = ()) -> web.Response:
    """Return JSON, or the media type that the client accepts instead.

    Warnings go into `Warning` headers with code 299 (RFC 7234, section 5.5; RFC 9111 made them obsolete).
    """
    try:
        media = media_of(request)
    except ApiError:
        if status < 400:
            raise
        media = ""  # errors are sent in JSON in any case
    response = web.Response(status=status, body=_as(media, body) if media else body, content_type=media or _JSON)
    if len(body) >= _COMPRESS_FROM and "gzip" in request.headers.get("Accept-Encoding", ""):
        response.body = gzip.compress(body, compresslevel=1)
        response.headers["Content-Encoding"] = "gzip"
    for value in _warning_values(warnings):
        response.headers.add("Warning", value)
    return response


def _warning_values(warnings: Sequence[str]) -> Iterator[str]:
    for text in list(dict.fromkeys(warnings))[:_WARNINGS]:
        # The text repeats input of the client, which could contain anything, even the end of a header.
        plain = text[:_WARNING_LENGTH]
        if not plain.isprintable():
            plain = "".join(char if char.isprintable() else "\ufffd" for char in plain)
        escaped = plain.replace("\\", "\\\\").replace('"', '\\"')
        yield f'299 - "{escaped}"'


def encode(
    request: web.BaseRequest, obj: Mapping[str, object], status: int = 200, warnings: Sequence[str] = ()
) -> web.Response:
    """Return a whole object."""
    return respond(request, msgspec.json.encode(obj), status, warnings)


class _Metadata(msgspec.Struct):
    """The part of an object that partial metadata needs."""

    metadata: msgspec.Raw


_METADATA = msgspec.json.Decoder(_Metadata)


def _partial(stored: Stored) -> bytes:
    top = b'{"kind":"PartialObjectMetadata","apiVersion":"meta.k8s.io/v1","metadata":'
    return b"".join((top, _METADATA.decode(stored.body).metadata, b"}"))
