"""Managed disks: the resource type `Microsoft.Compute/disks` (REST reference 2024-03-02).

A disk is a folder of this machine. Its size is kept and shown, and does not limit what is written. A group with a
`virtualMachine` attaches disks, each by one machine at a time; a disk that is attached cannot be deleted.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable, Iterable
from typing import Annotated, Literal

import msgspec
from aiohttp import web

from cumulet.common import clock
from cumulet.common.arm import ArmError, ResourceId, checked_tags, fixed, json_response, read_body
from cumulet.common.ascii import fold
from cumulet.common.kubernetes.objects import Object
from cumulet.common.regions import checked_location
from cumulet.instances.groups.attachments import attached_by
from cumulet.instances.groups.folders import remove_tree
from cumulet.instances.sandbox.disks import DiskFolders
from cumulet.instances.store.disks import DiskRecord, DiskStore
from cumulet.instances.store.records import GroupRecord

TYPE = "Microsoft.Compute/disks"
_NAMESPACE, _KIND = TYPE.split("/")
_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9_.-]{0,78}[A-Za-z0-9_])?")
_GIB = 1024**3

Sku = Literal[
    "Standard_LRS",
    "StandardSSD_LRS",
    "StandardSSD_ZRS",
    "Premium_LRS",
    "Premium_ZRS",
    "PremiumV2_LRS",
    "UltraSSD_LRS",
]
_Gigabytes = Annotated[int, msgspec.Meta(ge=1, le=65536)]


class _Strict(msgspec.Struct, rename="camel", kw_only=True, forbid_unknown_fields=True):
    """What is not a property here is refused by its name."""


class _SkuBody(_Strict):
    name: Sku
    tier: str | None = None


class _Creation(_Strict):
    create_option: Literal["Empty"]


class _Properties(_Strict):
    creation_data: _Creation | None = None
    disk_size_gb: _Gigabytes | None = msgspec.field(default=None, name="diskSizeGB")
    os_type: str | None = None


class DiskRequest(msgspec.Struct, kw_only=True):
    """The body of a PUT or PATCH; read-only members of the resource are ignored, as in Azure."""

    location: object = None
    tags: object = msgspec.UNSET
    sku: _SkuBody | None = None
    properties: _Properties = msgspec.field(default_factory=_Properties)


class Disks:
    """Serves disks as resources. `records` yields the groups, which may have disks attached."""

    def __init__(self, store: DiskStore, folders: DiskFolders, records: Callable[[], Iterable[GroupRecord]]) -> None:
        self._store = store
        self._folders = folders
        self._records = records
        self._disks = {disk.key: disk for disk in store.all()}
        folders.adopt({disk.key: disk.uid for disk in self._disks.values()})

    def routes(self) -> list[web.RouteDef]:
        """Return all routes; ids are compared without case."""
        subscription = f"/{fixed('subscriptions', 'subscriptions')}/{{subscription}}"
        kind = f"{fixed('providers', 'providers')}/{fixed(_NAMESPACE, 'namespace')}/{fixed(_KIND, 'type')}"
        many = f"{subscription}/{fixed('resourceGroups', 'groups')}/{{group}}/{kind}"
        one = f"{many}/{{name}}"
        return [
            web.get(f"{subscription}/{kind}", self._list),
            web.get(many, self._list),
            web.get(one, self._get),
            web.put(one, self._put),
            web.patch(one, self._patch),
            web.delete(one, self._delete),
        ]

    async def _list(self, request: web.Request) -> web.Response:
        start = fold(request.path[: -len(f"/providers/{TYPE}")])
        found = [disk for disk in self._disks.values() if disk.key.startswith(f"{start}/")]
        return json_response({"value": [self._show(disk) for disk in found]})

    async def _get(self, request: web.Request) -> web.Response:
        return json_response(self._show(self._existing(request)))

    async def _put(self, request: web.Request) -> web.Response:
        resource = ResourceId(request.path)
        existing = self._disks.get(resource.key)
        body = await read_body(request, DiskRequest)
        location = checked_location(body.location, TYPE, existing.location if existing else None)
        if existing is not None:
            return await self._change(existing, body)
        if not _NAME.fullmatch(resource.name):
            raise ArmError(
                400,
                "InvalidParameter",
                "The name of a disk has 1 to 80 letters, digits, '_', '.' and '-'.",
                target="name",
            )
        properties = body.properties
        if properties.creation_data is None or properties.disk_size_gb is None:
            raise ArmError(
                400,
                "InvalidParameter",
                "Required parameters 'creationData' and 'diskSizeGB' are missing (null): a disk is created empty.",
                target="properties",
            )
        tags = checked_tags(None if body.tags is msgspec.UNSET else body.tags)
        sku = body.sku.name if body.sku is not None else "Standard_LRS"
        disk = DiskRecord(
            uuid.uuid4(), resource.key, str(resource), location, tags, sku, properties.disk_size_gb, clock.rfc3339()
        )
        self._disks[disk.key] = disk  # a second request changes this one
        try:
            self._folders.make(disk.key, disk.uid)
            await self._store.put(disk)
        except BaseException:
            del self._disks[disk.key]
            raise
        return json_response(self._show(disk), 201)

    async def _patch(self, request: web.Request) -> web.Response:
        return await self._change(self._existing(request), await read_body(request, DiskRequest))

    async def _change(self, disk: DiskRecord, body: DiskRequest) -> web.Response:
        """Change the tags, the kind or the size of a disk, which can only grow. Raises `ArmError`."""
        size = body.properties.disk_size_gb or disk.gigabytes
        if size < disk.gigabytes:
            raise ArmError(
                409,
                "OperationNotAllowed",
                f"The new disk size {size} GB of '{ResourceId(disk.id).name}' is less than its size {disk.gigabytes} GB: a disk "
                "cannot be shrunk.",
                target="diskSizeGB",
            )
        disk = disk._replace(
            tags=disk.tags if body.tags is msgspec.UNSET else checked_tags(body.tags),
            sku=body.sku.name if body.sku is not None else disk.sku,
            gigabytes=size,
        )
        await self._store.put(disk)
        self._disks[disk.key] = disk
        return json_response(self._show(disk))

    async def _delete(self, request: web.Request) -> web.Response:
        disk = self._disks.get(ResourceId(request.path).key)
        if disk is None:
            return web.Response(status=204)
        if (machine := attached_by(disk.key, self._records())) is not None:
            raise ArmError(
                409,
                "OperationNotAllowed",
                f"Disk {ResourceId(disk.id).name} is attached to VM {machine}.",
                target="dataDisk",
            )
        del self._disks[disk.key]
        folder = self._folders.forget(disk.key)
        await self._store.remove(disk.uid)
        await remove_tree(folder)
        return web.Response(status=200)

    def _existing(self, request: web.Request) -> DiskRecord:
        resource = ResourceId(request.path)
        disk = self._disks.get(resource.key)
        if disk is None:
            raise ArmError(
                404,
                "ResourceNotFound",
                f"The Resource '{TYPE}/{resource.name}' under resource group '{resource.resource_group}' was not found.",
            )
        return disk

    def _show(self, disk: DiskRecord) -> Object:
        machine = attached_by(disk.key, self._records())
        shown: Object = {
            "id": disk.id,
            "name": ResourceId(disk.id).name,
            "type": TYPE,
            "location": disk.location,
            "tags": disk.tags,
            "sku": {"name": disk.sku, "tier": disk.sku.partition("_")[0]},
            "properties": {
                "creationData": {"createOption": "Empty"},
                "diskSizeGB": disk.gigabytes,
                "diskSizeBytes": disk.gigabytes * _GIB,
                "diskState": "Unattached" if machine is None else "Attached",
                "provisioningState": "Succeeded",
                "timeCreated": disk.created,
                "uniqueId": str(disk.uid),
            },
        }
        if machine is not None:
            shown["managedBy"] = machine
        return shown
