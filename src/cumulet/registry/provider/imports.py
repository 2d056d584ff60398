"""`importImage` and the progress of imports (REST reference 2023-07-01; ARM's asynchronous operations)."""

from __future__ import annotations

import asyncio
import uuid
from typing import ClassVar
from urllib.parse import quote

import msgspec
from aiohttp import web
from msgspec import UNSET, UnsetType

from cumulet.common import clock
from cumulet.common.arm import ArmError, ResourceId, front_door_url, json_response, read_json
from cumulet.common.ascii import fold
from cumulet.common.tasks import TaskSet
from cumulet.registry.access.gate import Gate
from cumulet.registry.access.tokens import Unauthorized
from cumulet.registry.catalog.blob_links import Links
from cumulet.registry.catalog.records import MissingPartsError, Registry
from cumulet.registry.catalog.store import Catalog
from cumulet.registry.oci import names
from cumulet.registry.oci.errors import OciError
from cumulet.registry.provider import paths
from cumulet.registry.upstream.client import UpstreamError, is_server, parse_image
from cumulet.registry.upstream.image_copy import Copier, Elsewhere, Origin, OwnRegistry, Progress
from cumulet.registry.webhooks.events import Events

#: Seconds to wait for an import before the response is 202.
_AT_ONCE = 1.0
_KEPT = 50
_MODES = ("NoForce", "Force")


class OperationError(msgspec.Struct):
    """The error of a failed operation."""

    code: str
    message: str


class Import(msgspec.Struct):
    """An import. `status` is `InProgress`, `Succeeded` or `Failed`."""

    segment: ClassVar[str] = "imports"

    name: str
    started: str
    status: str = "InProgress"
    ended: str | None = None
    error: OperationError | None = None


class _Credentials(msgspec.Struct):
    username: str = ""
    password: str = ""


class _Source(msgspec.Struct, rename="camel"):
    source_image: str
    registry_uri: str | None = None
    resource_id: str | None = None
    credentials: _Credentials | None = None


class _Body(msgspec.Struct, rename={"target_tags": "targetTags", "untagged": "untaggedTargetRepositories"}):
    source: _Source
    target_tags: list[str] | None = None
    untagged: list[str] | None = None
    mode: str = "NoForce"


class _Progress(msgspec.Struct, rename="camel"):
    bytes: int
    total_bytes: int


class _OperationStatus(msgspec.Struct, rename="camel", kw_only=True):
    """The response of an asynchronous operation."""

    id: str
    name: str
    status: str
    start_time: str
    percent_complete: float
    properties: _Progress | UnsetType = UNSET
    end_time: str | UnsetType = UNSET
    error: OperationError | UnsetType = UNSET


class Imports:
    """Runs imports. A restart fails an unfinished import, because its credentials are not stored."""

    def __init__(
        self,
        catalog: Catalog,
        gate: Gate,
        links: Links,
        copier: Copier,
        events: Events,
        tasks: TaskSet,
        elsewhere: Elsewhere,
    ) -> None:
        self._catalog = catalog
        self._gate = gate
        self._links = links
        self._copier = copier
        self._events = events
        self._tasks = tasks
        self._elsewhere = elsewhere
        self._running: dict[str, Progress] = {}

    def routes(self) -> list[web.RouteDef]:
        """The routes of imports."""
        operations = f"{paths.SUBSCRIPTION}/{paths.word('locations', 'place')}/{{location}}"
        return [
            web.post(f"{paths.REGISTRY}/{paths.word('importImage')}", self._import),
            web.get(f"{operations}/{paths.word('operationStatuses')}/{{operation}}", self._status),
            web.get(f"{operations}/{paths.word('operationResults')}/{{operation}}", self._result),
        ]

    async def _import(self, request: web.Request) -> web.Response:
        registry = paths.existing(self._catalog, request)
        try:
            body = msgspec.convert(await read_json(request), _Body)
        except msgspec.ValidationError as error:
            raise ArmError(400, "InvalidRequestContent", f"The request content was invalid: {error}") from None
        try:
            repository, reference = parse_image(body.source.source_image)
            targets = _targets(body, repository, reference)
        except OciError as error:
            raise ArmError(400, "InvalidImageName", str(error)) from None
        assert reference is not None
        if body.mode not in _MODES:
            raise ArmError(400, "InvalidRequestContent", f"mode must be {' or '.join(_MODES)}.", target="mode")
        if body.mode == "NoForce":
            self._demand_free(registry, targets)
        origin = await self._origin(request, body.source, repository)
        operation = Import(f"{registry.key}-{uuid.uuid4()}", clock.rfc3339_micro())
        progress = self._running[operation.name] = Progress()
        await self._keep(registry, operation)
        work = self._carry_out(request, registry, operation, origin, (repository, reference), targets, progress)
        task = self._tasks.start(work, f"import {body.source.source_image}")
        await asyncio.wait([task], timeout=_AT_ONCE)
        if task.done():
            return self._answer(registry, operation)
        return _accepted(request, registry, operation.name)

    async def _carry_out(
        self,
        request: web.Request,
        registry: Registry,
        operation: Import,
        origin: Origin,
        source: tuple[str, str],
        targets: dict[str, list[str]],
        progress: Progress,
    ) -> None:
        principal = f"import {operation.name}"
        try:
            for target, tags in targets.items():
                manifest = await self._copier.copy(origin, source, registry, target, tags, principal, progress)
                await self._events.pushed(request, registry, target, manifest, tags)
            operation.status = "Succeeded"
        except UpstreamError as error:
            operation.error = OperationError("ImportSourceFailed", f"The source could not be read: {error}")
        except (OciError, MissingPartsError) as error:
            code = error.code if isinstance(error, OciError) else "MANIFEST_BLOB_UNKNOWN"
            operation.error = OperationError("ImportFailed", f"The image could not be stored: {code}: {error}")
        finally:
            if operation.status == "InProgress":
                operation.status = "Failed"
            operation.ended = clock.rfc3339_micro()
            await self._catalog.resources.put(registry.key, operation)
            del self._running[operation.name]

    async def _origin(self, request: web.Request, source: _Source, repository: str) -> Origin:
        """The origin of an image, which the caller or the credentials may pull. Raises `ArmError`."""
        credentials = source.credentials
        own: Registry | None
        if source.resource_id is not None:
            own = self._by_id(source.resource_id)
        elif source.registry_uri is not None:
            server = fold(source.registry_uri.removeprefix("https://").strip("/"))
            if not is_server(server):
                raise ArmError(
                    400, "InvalidRegistryUri", f"'{server[:200]}' is not a server.", target="source.registryUri"
                )
            own = next((item for item in self._catalog.registries() if self._gate.login_server(item) == server), None)
            if own is None:
                pair = (credentials.username, credentials.password) if credentials is not None else None
                return self._elsewhere(server, pair)
        else:
            raise ArmError(400, "SourceRequired", "source needs a resourceId or a registryUri.", target="source")
        try:
            if credentials is not None:
                principal = await self._gate.check_password(own, credentials.username, credentials.password)
            else:
                object_id = request.headers.get("x-ms-client-object-id", "")
                principal = await self._gate.principal(own, request.headers.get("x-ms-client-app-id", ""), object_id)
        except Unauthorized as error:
            raise ArmError(401, "ImportSourceFailed", f"The source refused the credentials: {error}") from None
        except OciError as error:
            raise ArmError(error.status, "ImportSourceFailed", str(error)) from None
        if not principal.rights.allow("pull", "repository", repository):
            raise ArmError(
                403, "LinkedAuthorizationFailed", f"'{principal.name}' may not pull '{repository}' from '{own.name}'."
            )
        return OwnRegistry(own, self._catalog, self._links)

    def _by_id(self, text: str) -> Registry:
        resource_id = ResourceId(text)
        for registry in self._catalog.registries():
            if ResourceId(registry.id) == resource_id:
                return registry
        raise ArmError(
            404, "ResourceNotFound", f"The registry '{text[:300]}' was not found.", target="source.resourceId"
        )

    def _demand_free(self, registry: Registry, targets: dict[str, list[str]]) -> None:
        for target, tags in targets.items():
            for tag in tags:
                if self._catalog.tags(registry.key, target, name=tag):
                    raise ArmError(
                        409,
                        "Conflict",
                        f"The tag '{target}:{tag}' already exists in the registry '{registry.name}': use mode Force.",
                    )

    async def _keep(self, registry: Registry, operation: Import) -> None:
        resources = self._catalog.resources
        ended = sorted((item for item in resources.list(registry.key, Import)), key=lambda item: item.started)
        for old in ended[:-_KEPT]:
            if old.name not in self._running:
                await resources.remove(registry.key, Import, old.name)
        await resources.put(registry.key, operation)

    def _operation(self, request: web.Request) -> tuple[Registry, Import]:
        name = request.match_info["operation"]
        registry = paths.by_key(self._catalog, fold(name.partition("-")[0]))
        operation = self._catalog.resources.find(registry.key, Import, name) if registry is not None else None
        if registry is None or operation is None:
            raise ArmError(404, "NotFound", f"There is no operation '{name[:100]}'.")
        if operation.status == "InProgress" and operation.name not in self._running:
            operation.status = "Failed"
            message = "The registry was restarted in the meantime: import again."
            operation.error = OperationError("ImportInterrupted", message)
        return registry, operation

    async def _status(self, request: web.Request) -> web.Response:
        registry, operation = self._operation(request)
        progress = self._running.get(operation.name)
        status = _OperationStatus(
            id=f"{registry.id}/imports/{operation.name}",
            name=operation.name,
            status=operation.status,
            start_time=operation.started,
            percent_complete=progress.percent if progress else 100.0,
            properties=_Progress(progress.done, progress.total) if progress else UNSET,
            end_time=operation.ended or UNSET,
            error=operation.error or UNSET,
        )
        return json_response(status, headers={"Retry-After": "1"} if progress else None)

    async def _result(self, request: web.Request) -> web.Response:
        registry, operation = self._operation(request)
        if operation.status == "InProgress":
            return _accepted(request, registry, operation.name)
        return self._answer(registry, operation)

    def _answer(self, registry: Registry, operation: Import) -> web.Response:
        if operation.error is not None:
            raise ArmError(409, operation.error.code, operation.error.message)
        if operation.status == "Failed":
            raise ArmError(500, "InternalServerError", "The import met an internal error.")
        return web.Response(status=200)


def _targets(body: _Body, repository: str, reference: str | None) -> dict[str, list[str]]:
    """The tags to set in each repository. Raises `OciError` 400."""
    targets: dict[str, list[str]] = {}
    for text in body.target_tags or []:
        name, tag = parse_image(text, default_tag="latest")
        if tag is None or names.is_digest(tag):
            raise OciError(400, "TAG_INVALID", f"the target '{text[:200]}' is not repository:tag")
        targets.setdefault(name, []).append(tag)
    for name in body.untagged or []:
        targets.setdefault(names.repository(name), [])
    if not targets:
        targets[repository] = [reference] if reference is not None and not names.is_digest(reference) else []
    return targets


def _accepted(request: web.Request, registry: Registry, operation: str) -> web.Response:
    base = front_door_url(request)
    subscription = "/".join(registry.id.split("/")[:3])
    location = quote(registry.resource.location, safe="")
    place = f"{base}{subscription}/providers/Microsoft.ContainerRegistry/locations/{location}"
    query = "?api-version=2023-07-01"
    headers = {
        "Azure-AsyncOperation": f"{place}/operationStatuses/{operation}{query}",
        "Location": f"{place}/operationResults/{operation}{query}",
        "Retry-After": "1",
    }
    return web.Response(status=202, headers=headers)
