"""Get, list and watch (Kubernetes API concepts, "Efficient detection of changes")."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

import msgspec
from aiohttp import web

from cumulet.common.ascii import is_digits
from cumulet.kube.apimachinery.status import ApiError, bad_request
from cumulet.kube.catalog.custom_conversion import Conversions
from cumulet.kube.catalog.resources import Row
from cumulet.kube.codec import PROTOBUF
from cumulet.kube.http.negotiation import form_of, respond, respond_object, shaped_list
from cumulet.kube.http.options import check_list, is_set, whole_number
from cumulet.kube.objects.selectors import Predicate, Selection, field_selector, label_selector
from cumulet.kube.objects.watch import Watches
from cumulet.kube.schema.validation.field_errors import quoted
from cumulet.kube.store import GoneError, Store, Stored

if TYPE_CHECKING:
    from cumulet.common.kubernetes.objects import StatusCause

_TOO_OLD = (
    "The provided continue parameter is too old to display a consistent list result. You can start a new list without "
    "the continue parameter, or use the continue token in this response to retrieve the remainder of the results. "
    "Continuing with the provided token results in an inconsistent list - objects that were created, modified, or "
    "deleted between the time the first chunk was returned and now may show up in the list."
)
_TIMEOUT = 1800.0
_FIELDS: dict[str, frozenset[str]] = {
    "pods": frozenset(
        [
            "spec.nodeName",
            "spec.restartPolicy",
            "spec.schedulerName",
            "spec.serviceAccountName",
            "status.phase",
            "status.podIP",
            "status.nominatedNodeName",
        ]
    ),
    "nodes": frozenset({"spec.unschedulable"}),
    "services": frozenset({"spec.clusterIP", "spec.type"}),
    "namespaces": frozenset({"status.phase"}),
    "secrets": frozenset({"type"}),
    "events": frozenset(
        [
            "involvedObject.kind",
            "involvedObject.namespace",
            "involvedObject.name",
            "involvedObject.uid",
            "involvedObject.apiVersion",
            "involvedObject.resourceVersion",
            "involvedObject.fieldPath",
            "reason",
            "type",
            "source",
            "reportingComponent",
        ]
    ),
}
#: Rarely selected fields: looked up in the whole object.
_PATHS: dict[str, dict[str, tuple[str, ...]]] = {
    "pods": {"spec.hostNetwork": ("spec", "hostNetwork"), "status.podIPs": ("",)},
    "jobs.batch": {"status.successful": ("status", "succeeded")},
    "replicationcontrollers": {"status.replicas": ("status", "replicas")},
    "certificatesigningrequests.certificates.k8s.io": {"spec.signerName": ("spec", "signerName")},
    "resourceslices.resource.k8s.io": {
        "spec.driver": ("spec", "driver"),
        "spec.nodeName": ("spec", "nodeName"),
    },
    "ipaddresses.networking.k8s.io": {"spec.parentRef.name": ("spec", "parentRef", "name")},
}
_EVENTS_GROUP = "events.k8s.io"
_EVENT_NAMES = (("regarding.", "involvedObject."), ("reportingController", "reportingComponent"))
_FEW = '"{}" is not a known field selector: only "metadata.name", "metadata.namespace"'
_SOME = "field label not supported: {}"
_UNSUPPORTED = {"jobs.batch": 'field label "{}" not supported for Job'}
_COMMON = frozenset({"metadata.name", "metadata.namespace"})


class Reads:
    """Answers get, list and watch from memory."""

    def __init__(self, store: Store, stopping: asyncio.Event, conversions: Conversions) -> None:
        self._store = store
        self._conversions = conversions
        self._watching = Watches(store, stopping, conversions)

    async def get(self, request: web.BaseRequest, row: Row, stored: Stored) -> web.StreamResponse:
        """Return one object."""
        if row.custom is not None:
            (stored,) = await self._conversions.shown(row, (stored,))
        return respond_object(request, row, stored)

    async def watch(self, request: web.BaseRequest, row: Row, namespace: str, name: str = "") -> web.StreamResponse:
        """Return a stream of changes: of one object where `name` is set."""
        return await self._watch(request, row, _selection(row, namespace, request.query, name))

    async def list(self, request: web.BaseRequest, row: Row, namespace: str) -> web.Response:
        """Return a list, in pages where `limit` is set."""
        query = request.query
        check_list(query)
        selection = _selection(row, namespace, query)
        after, revision = self._start(request, row, namespace)
        whole = self._store.list(row.key, namespace)
        if revision:
            try:
                whole = self._store.list_at(row.key, namespace, revision)
            except GoneError:
                raise self._expired(query.get("continue", ""), after) from None
        selected = [stored for stored in whole if (stored.namespace, stored.name) > after and selection.has(stored)]
        revision = revision or self._store.revision
        metadata: dict[str, str | int] = {"resourceVersion": str(revision)}
        limit = whole_number(query.get("limit", ""))
        if query.get("resourceVersion") == "0" and not query.get("continue"):
            limit = 0  # upstream returns a list from its cache whole
        if limit > 0 and len(selected) > limit:
            metadata["continue"] = _continue((selected[limit - 1].namespace, selected[limit - 1].name), revision)
            if selection.is_whole:
                metadata["remainingItemCount"] = len(selected) - limit
            selected = selected[:limit]
        shown = await self._conversions.shown(row, selected)
        return respond(request, shaped_list(row, shown, metadata, form_of(request)))

    def _start(self, request: web.BaseRequest, row: Row, namespace: str) -> tuple[tuple[str, str], int]:
        """Return the key that a list starts after, and its revision, where 0 is the current one.

        Raises `ApiError`.
        """
        query = request.query
        wanted = _revision(query.get("resourceVersion", ""))
        match = query.get("resourceVersionMatch", "")
        if token := query.get("continue", ""):
            if wanted:
                raise bad_request("specifying resource version is not allowed when using continue")
            return _position(token)
        self._check_reached(wanted)
        return ("", ""), wanted if match == "Exact" else 0

    def _check_reached(self, revision: int) -> None:
        """Refuse a revision of the future. Raises `ApiError` 504."""
        if revision > self._store.revision:
            why = f"Timeout: Too large resource version: {revision}, current: {self._store.revision}"
            cause: StatusCause = {"reason": "ResourceVersionTooLarge", "message": "Too large resource version"}
            raise ApiError(504, "Timeout", why, {"causes": [cause], "retryAfterSeconds": 1})

    def _expired(self, token: str, after: tuple[str, str]) -> ApiError:
        if not token:
            return ApiError(410, "Expired", "The resourceVersion for the provided list is too old.")
        error = ApiError(410, "Expired", _TOO_OLD)
        error.metadata["continue"] = _continue(after, -1)
        return error

    @property
    def revision(self) -> int:
        """The current revision."""
        return self._store.revision

    def selected(self, request: web.BaseRequest, row: Row, namespace: str) -> Iterable[Stored]:
        """Return the objects that a delete of a collection selects."""
        selection = _selection(row, namespace, request.query)
        return [stored for stored in self._store.list(row.key, namespace) if selection.has(stored)]

    async def _watch(self, request: web.BaseRequest, row: Row, selection: Selection) -> web.StreamResponse:
        query, form = request.query, form_of(request)
        check_list(query if is_set(query, "watch") else {**query, "watch": "true"})
        since = _revision(query.get("resourceVersion", ""))
        initial = is_set(query, "sendInitialEvents")
        self._check_reached(since)
        if form.media == PROTOBUF and row.custom is not None:
            why = "only the following media types are accepted: application/json, application/yaml"
            raise ApiError(406, "NotAcceptable", why, {})
        try:
            return await self._watching.serve(
                request,
                row,
                selection,
                form,
                # Without a revision, or with 0, the current state comes first.
                since=None if initial or since == 0 else since,
                seconds=max(whole_number(query.get("timeoutSeconds", "")), 0) or _TIMEOUT,
                bookmarks=is_set(query, "allowWatchBookmarks"),
                initial=initial,
            )
        except GoneError:
            status = ApiError(410, "Expired", f"too old resource version: {since} ({self._store.revision})").status()
            return await _only(request, b'{"type":"ERROR","object":' + msgspec.json.encode(status) + b"}\n")


def _selection(row: Row, namespace: str, query: Mapping[str, str], name: str = "") -> Selection:
    labels, fields = query.get("labelSelector", ""), query.get("fieldSelector", "")
    return Selection(namespace, name, labels, fields, _selects(row, labels, fields))


def _selects(row: Row, labels: str, fields: str) -> Predicate | None:
    by_label = label_selector(labels)
    paths = row.custom.fields if row.custom is not None else _PATHS.get(row.key)
    if row.group == _EVENTS_GROUP:
        for new, old in _EVENT_NAMES:
            fields = fields.replace(new, old)
    own = _FIELDS.get(row.key, frozenset())
    unsupported = _UNSUPPORTED.get(row.key, _SOME if own or paths else _FEW)
    by_field = field_selector(fields, _COMMON | own, paths, unsupported)
    if by_label is None or by_field is None:
        return by_label or by_field
    return lambda stored: by_label(stored) and by_field(stored)


async def _only(request: web.BaseRequest, line: bytes) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": "application/json"})
    await response.prepare(request)
    await response.write(line)
    await response.write_eof()
    return response


def _revision(text: str) -> int:
    if not text:
        return 0
    if not is_digits(text) or len(text) > 18:
        given = quoted(text[:64])
        why = f"Invalid value: {given}: strconv.ParseUint: parsing {given}: invalid syntax"
        raise bad_request(f"invalid resource version: resourceVersion: {why}")
    return int(text)


def _continue(last: tuple[str, str], revision: int) -> str:
    """Return the token of the next page; with revision -1 it continues in the then current state."""
    token = {"v": "meta.k8s.io/v1", "rv": revision, "start": f"{last[0]}/{last[1]}"}
    return base64.urlsafe_b64encode(msgspec.json.encode(token)).rstrip(b"=").decode()


def _position(token: str) -> tuple[tuple[str, str], int]:
    """Return the key that a page starts after, and the revision of its list. Raises `ApiError` 400."""
    try:
        fields = msgspec.json.decode(base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)))
        namespace, _, name = fields["start"].partition("/")
        return (namespace, name), max(int(fields["rv"]), 0)
    except (ValueError, KeyError, TypeError, AttributeError):
        why = f"illegal base64 data at input byte {len(token) - 1}" if len(token) % 4 == 1 else "not a valid token"
        raise bad_request(f"invalid continue token: continue key is not valid: {why}") from None
