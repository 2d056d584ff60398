"""The entry of the API server: authenticate, authorize and dispatch each request."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

import msgspec
from aiohttp import web
from prometheus_client import Counter, Histogram

from cumulet.common.ascii import fold
from cumulet.common.kubernetes.objects import Object
from cumulet.kube.access.attributes import Attributes
from cumulet.kube.access.authentication import Authenticator
from cumulet.kube.access.authorization import Authorizer
from cumulet.kube.access.impersonation import impersonated
from cumulet.kube.access.users import ServiceAccountTokens, User
from cumulet.kube.aggregation.discovery import group_of, with_groups, with_versions
from cumulet.kube.aggregation.resource_metrics import GROUP as METRICS
from cumulet.kube.aggregation.resource_metrics import ResourceMetrics
from cumulet.kube.aggregation.servers import Aggregation
from cumulet.kube.apimachinery.status import ApiError, bad_request, forbidden, method_not_allowed, no_such_resource
from cumulet.kube.catalog.builtin_conversion import from_stored, to_stored
from cumulet.kube.catalog.resources import Row
from cumulet.kube.catalog.served_resources import Catalog
from cumulet.kube.codec import is_yaml
from cumulet.kube.codec.repeated import as_one, repeated
from cumulet.kube.discovery import groups, openapi
from cumulet.kube.discovery.openapi_v2 import Swagger
from cumulet.kube.flow import SEAT, Flows
from cumulet.kube.http.audit import AuditLog
from cumulet.kube.http.body import decoded, field_validation, read, whole
from cumulet.kube.http.negotiation import encode, respond, respond_written
from cumulet.kube.http.options import check_write, delete_options
from cumulet.kube.http.request_info import Target, parse, selected_name
from cumulet.kube.http.worker_threads import LARGE, LARGE_YAML, offload
from cumulet.kube.http.write_context import WriteContext, warned
from cumulet.kube.objects.get_list import Reads
from cumulet.kube.objects.patch import patcher, unpatched
from cumulet.kube.objects.server_side_apply import ServerSideApply, is_apply
from cumulet.kube.objects.write import Objects
from cumulet.kube.subresources.routes import Subresources

log = logging.getLogger(__name__)

_LONG = ("watch", "log", "exec", "attach", "portforward", "proxy")

#: Sub-resources that are part of the object itself.
_WHOLE = ("", "status", "approval", "ephemeralcontainers", "resize")

#: Kinds that an update creates where they do not exist.
_MADE_BY_UPDATE = frozenset(
    (
        "services",
        "endpoints",
        "events",
        "limitranges",
        "leases.coordination.k8s.io",
        "runtimeclasses.node.k8s.io",
        "roles.rbac.authorization.k8s.io",
        "rolebindings.rbac.authorization.k8s.io",
        "clusterroles.rbac.authorization.k8s.io",
        "clusterrolebindings.rbac.authorization.k8s.io",
    )
)


_READS = ("GET", "HEAD")
#: Other methods share one label: each label is a series of the metrics, and clients must not create series.
_METHODS = frozenset({*_READS, "POST", "PUT", "PATCH", "DELETE"})


class Api:
    """Answers every request with `handle`."""

    def __init__(
        self,
        catalog: Catalog,
        objects: Objects,
        reading: Reads,
        subresources: Subresources,
        authorizer: Authorizer,
        tokens: ServiceAccountTokens,
        authenticator: Authenticator,
        flows: Flows,
        audit: AuditLog,
        resource_metrics: ResourceMetrics,
        aggregation: Aggregation,
        metrics: tuple[Counter, Histogram],
        exposition: Callable[[], web.Response],
    ) -> None:
        """Build the API; `exposition` returns the metrics in Prometheus' format."""
        self._catalog = catalog
        self._objects = objects
        self._reading = reading
        self._subresources = subresources
        self._authorizer = authorizer
        self._tokens = tokens
        self._authenticator = authenticator
        self._flows = flows
        self._audit = audit
        self._metrics = resource_metrics
        self._aggregation = aggregation
        self._swagger = Swagger()
        self._applying = ServerSideApply(objects)
        self._requests, self._seconds = metrics
        self._exposition = exposition
        self._series: dict[tuple[str, int], tuple[Counter, Histogram]] = {}

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer a request; an unexpected exception is logged, and the client gets no detail of it."""
        began = time.perf_counter()
        verb = request.method if request.method in _METHODS else "other"
        target = real = user = None
        try:
            real = await self._authenticator.caller(request)
            user = impersonated(request, real, self._authorizer)
            target = parse(request, self._catalog)
            if target is None:
                response: web.StreamResponse = await self._about(request, user)
            else:
                verb = target.verb
                response = await self._in_turn(request, user, target)
        except ApiError as error:
            response = encode(request, error.status(), error.code, warned(request))
            if error.details and isinstance(seconds := error.details.get("retryAfterSeconds"), int) and seconds:
                response.headers["Retry-After"] = str(seconds)
        except RecursionError:
            # No data of the server is that deep, so the request's is.
            response = encode(request, bad_request("exceeded max depth").status(), 400)
        except (ConnectionError, web.HTTPException):
            raise
        except Exception:
            log.exception("%s %s failed", request.method, request.path)
            response = encode(request, ApiError(500, "InternalError", "an internal error occurred", {}).status(), 500)
        if real is None:
            self._audit.refused(request, self._target(request), time.perf_counter() - began)
        elif target is not None and user is not None and self._audit.is_logged(target, response.status):
            self._audit.write(request, real, user, target, response.status, time.perf_counter() - began)
        self._count(verb, response.status, time.perf_counter() - began)
        return response

    def _target(self, request: web.BaseRequest) -> Target | None:
        try:
            return parse(request, self._catalog)
        except ApiError:
            return None

    def _count(self, verb: str, status: int, seconds: float) -> None:
        series = self._series.get((verb, status))
        if series is None:
            series = self._series[verb, status] = (self._requests.labels(verb, status), self._seconds.labels(verb))
        counter, histogram = series
        counter.inc()
        if verb not in _LONG:
            histogram.observe(seconds)

    async def _in_turn(self, request: web.BaseRequest, user: User, target: Target) -> web.StreamResponse:
        """Authorize a request and answer it when it has a seat."""
        # For reads, a field selector may name the one object.
        reads = target.verb in ("list", "watch")
        wanted = self._authorize(user, target, target.name or (selected_name(request) if reads else ""))
        if target.subresource in _LONG:
            return await self._dispatch(request, user, target)
        seat = await self._flows.enter(user, wanted)
        SEAT.set(seat)
        try:
            return await self._dispatch(request, user, target)
        finally:
            seat.release()

    def _authorize(self, user: User, target: Target, name: str) -> Attributes:
        row = target.row
        wanted = Attributes(target.verb, row.group, row.plural, target.subresource, target.namespace, name)
        if not self._authorizer.allows(user, wanted):
            where = f' in the namespace "{target.namespace}"' if target.namespace else " at the cluster scope"
            full = f"{row.plural}/{target.subresource}" if target.subresource else row.plural
            why = f'User "{user.name}" cannot {target.verb} resource "{full}" in API group "{row.group}"{where}'
            raise forbidden(row.group, row.plural, name, why)
        return wanted

    async def _about(self, request: web.BaseRequest, user: User) -> web.StreamResponse:
        """Answer on paths that are not resources: discovery, OpenAPI, health, version."""
        path = request.path.rstrip("/") or "/"
        rows = self._catalog.rows
        verb = "get" if request.method in _READS else request.method
        if not self._authorizer.allows(user, Attributes(fold(verb), path=path)):
            why = f'User "{user.name}" cannot {fold(verb)} path "{path}"'
            raise ApiError(403, "Forbidden", f"forbidden: {why}", {})
        if request.method not in _READS:
            raise method_not_allowed()
        wants_aggregated = "as=APIGroupDiscoveryList" in request.headers.get("Accept", "")
        if path in ("/api", "/apis") and wants_aggregated:
            document = groups.aggregated(rows, core=path == "/api")
            if path == "/apis":
                document = with_versions(document, self._aggregation)
            response = encode(request, document)
            response.headers["Content-Type"] = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
            return response
        parts = path.split("/")[1:]
        match parts:
            case ["metrics"]:
                return self._exposition()
            case ["version"]:
                return encode(request, groups.version())
            case ["healthz" | "livez" | "readyz" as check, *_]:
                verbose = "verbose" in request.query and len(parts) == 1
                return web.Response(text=f"[+]ping ok\n[+]store ok\n{check} check passed\n" if verbose else "ok")
            case [""]:
                return encode(request, {"paths": groups.paths(rows)})
            case [".well-known", "openid-configuration"]:
                return encode(request, self._tokens.discovery())
            case ["openid", "v1", "jwks"]:
                return encode(request, self._tokens.key_set())
            case ["api"]:
                return encode(request, {"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": []})
            case ["apis"]:
                return encode(request, with_groups(groups.group_list(rows), self._aggregation))
            case ["api", version] if (resources := groups.resource_list(rows, "", version)) is not None:
                return encode(request, resources)
            case ["apis", group] if group and (info := self._group(rows, group)) is not None:
                return encode(request, info)
            case ["apis", group, version] if (resources := groups.resource_list(rows, group, version)) is not None:
                return encode(request, resources)
            case ["apis", group, version] if (server := self._aggregation.find(group, version)) is not None:
                return await self._aggregation.answer(request, user, server)
            case ["openapi", "v3"]:
                return encode(request, openapi.index(rows))
            case ["openapi", "v3", *rest] if (raw := openapi.document(rows, "/".join(rest))) is not None:
                return respond(request, raw)
            case ["openapi", "v2"]:
                return await self._swagger.answer(request, rows)
        raise no_such_resource()

    def _group(self, rows: tuple[Row, ...], group: str) -> Object | None:
        here = groups.group_info(rows, group) if any(row.group == group for row in rows) else None
        return group_of(here, group, self._aggregation)

    async def _dispatch(self, request: web.BaseRequest, user: User, target: Target) -> web.StreamResponse:
        row = target.row
        if row.is_remote:
            server = self._aggregation.find(row.group, row.version)
            if server is None:
                raise no_such_resource()
            return await self._aggregation.answer(request, user, server)
        if target.subresource not in _WHOLE:
            return await self._subresources.handle(request, user, target)
        if target.verb not in row.verbs:
            raise method_not_allowed()
        if row.group == METRICS:
            return await self._metrics.answer(request, target)
        match target.verb:
            case "get":
                return await self._reading.get(request, row, self._objects.get(row, target.namespace, target.name))
            case "list":
                return await self._reading.list(request, row, target.namespace)
            case "watch":
                return await self._reading.watch(request, row, target.namespace, target.name)
            case "create":
                return await self._create(request, user, target)
            case "update":
                return await self._update(request, user, target)
            case "patch":
                return await self._patch(request, user, target)
            case "delete":
                return await self._delete(request, user, target)
            case "deletecollection":
                return await self._delete_collection(request, user, target)
        raise method_not_allowed()

    async def _decoded(self, request: web.BaseRequest, row: Row) -> tuple[Object, list[str]]:
        """Return the object in a request's body, and warnings about it."""
        media, raw, validation = (
            request.headers.get("Content-Type", ""),
            await read(request),
            field_validation(request),
        )
        obj = await decoded(media, raw, row.kind)

        def checked() -> list[str]:
            messages = repeated(media, raw, obj) if validation != "Ignore" else []
            if validation == "Strict":
                messages = as_one(media, messages)
            return self._objects.decode(row, obj, validation, messages)

        return obj, await offload(len(raw), checked, LARGE_YAML if is_yaml(media, raw) else LARGE)

    async def _create(self, request: web.BaseRequest, user: User, target: Target) -> web.StreamResponse:
        row = target.row
        check_write(request)
        obj, warnings = await self._decoded(request, row)
        if row.kind == "Binding":
            bound = target._replace(name=obj["metadata"].get("name", ""))
            return await self._subresources.bind(request, user, bound, obj)
        if row.verbs == ("create",):
            return await self._subresources.review(request, user, target, obj)
        by = WriteContext.of(request, user)
        by.warnings += warnings
        made = await self._objects.create(row.hub or row, target.namespace, to_stored(row, obj), by)
        return self._written(request, target, made, 201, by)

    def _written(
        self, request: web.BaseRequest, target: Target, made: Object, status: int, by: WriteContext
    ) -> web.StreamResponse:
        stored = None if by.dry_run else self._objects.find(target.row, target.namespace, made["metadata"]["name"])
        return respond_written(request, target.row, made, stored, status, by.warnings)

    async def _update(self, request: web.BaseRequest, user: User, target: Target) -> web.StreamResponse:
        row = target.row
        check_write(request)
        obj, warnings = await self._decoded(request, row)
        by = WriteContext.of(request, user)
        by.warnings += warnings
        is_made = row.key in _MADE_BY_UPDATE and not target.subresource
        if is_made and not self._objects.exists(row, target.namespace, target.name):
            self._authorize(user, target._replace(verb="create"), target.name)
            obj["metadata"].setdefault("name", target.name)
            made = await self._objects.create(row.hub or row, target.namespace, to_stored(row, obj), by)
            return self._written(request, target, made, 201, by)
        made = await self._objects.change(
            row.hub or row,
            target.namespace,
            target.name,
            lambda _: to_stored(row, msgspec.json.decode(msgspec.json.encode(obj))),
            by,
            subresource=target.subresource,
        )
        return self._written(request, target, made, 200, by)

    async def _patch(self, request: web.BaseRequest, user: User, target: Target) -> web.StreamResponse:
        row = target.row
        raw = await read(request)
        if is_apply(request):
            return await self._applying.apply(request, user, target, raw)
        change, warnings = patcher(request, row, raw)
        check_write(request)
        validation = field_validation(request)
        by = WriteContext.of(request, user)

        def changed(old: Object) -> Object:
            before = from_stored(row, old)
            obj = change(before)
            if not isinstance(obj, dict) or not isinstance(obj.get("metadata", {}), dict):
                raise bad_request("the patched object is not an object")
            text = msgspec.json.encode(whole(row, obj)) if validation == "Strict" else b""
            try:
                by.warnings[:] = sorted(self._objects.decode(row, obj, validation, warnings, before=before))
            except ApiError as error:
                raise unpatched(text or msgspec.json.encode(whole(row, obj)), error) from None
            return to_stored(row, obj)

        made = await self._objects.change(
            row.hub or row,
            target.namespace,
            target.name,
            changed,
            by,
            subresource=target.subresource,
        )
        return self._written(request, target, made, 200, by)

    async def _delete(self, request: web.BaseRequest, user: User, target: Target) -> web.Response:
        row = target.row
        options = await delete_options(request)
        by = WriteContext.of(request, user)
        by.dry_run = by.dry_run or bool(options.get("dryRun"))
        obj, finished = await self._objects.delete(row, target.namespace, target.name, options, by)
        if finished and row.key != "pods":
            details = {"name": target.name, "kind": row.plural, "uid": obj["metadata"]["uid"]}
            if row.group:
                details["group"] = row.group
            status = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details}
            return encode(request, status, 200, by.warnings)
        return encode(request, whole(row, obj), 200, by.warnings)

    async def _delete_collection(self, request: web.BaseRequest, user: User, target: Target) -> web.Response:
        row = target.row
        options = await delete_options(request)
        by = WriteContext.of(request, user)
        by.dry_run = by.dry_run or bool(options.get("dryRun"))
        items = []
        metadata = {"resourceVersion": str(self._reading.revision)}
        for stored in self._reading.selected(request, row, target.namespace):
            try:
                await self._objects.delete(row, stored.namespace, stored.name, options, by)
            except ApiError as error:
                if error.code != 404:
                    raise
            else:
                items.append(from_stored(row, stored.load()))
        items_list = {"kind": f"{row.kind}List", "apiVersion": row.api_version, "metadata": metadata, "items": items}
        return encode(request, items_list)
