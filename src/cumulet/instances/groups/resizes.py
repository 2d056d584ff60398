"""Resizes running containers (Kubernetes, "Resize CPU and Memory Resources assigned to Containers")."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

import msgspec

from cumulet.instances.groups.attempts import Attempts
from cumulet.instances.groups.services import Save, Services
from cumulet.instances.metering import usage
from cumulet.instances.model.pod import ResourceRequirements
from cumulet.instances.model.properties import Container
from cumulet.instances.runtime.conmon import RuntimeFailure
from cumulet.instances.runtime.control_group import control_group_limits
from cumulet.instances.store.records import ContainerStatus, GroupRecord

log = logging.getLogger(__name__)

#: Seconds after which a resize that failed, or whose container was starting, is tried again.
_AGAIN = 10.0

#: Restarts a container, with the reason.
Restart = Callable[[str, str], Awaitable[None]]


class Resizes:
    """Brings the limits of a group's running containers to those of its record. `parent` is their control group."""

    def __init__(
        self,
        record: GroupRecord,
        attempts: Attempts,
        services: Services,
        save: Save,
        restart: Restart,
        parent: str,
    ) -> None:
        self._record = record
        self._attempts = attempts
        self._services = services
        self._save = save
        self._restart = restart
        self._parent = parent
        self._changed = asyncio.Event()
        self._changed.set()

    def begin(self) -> None:
        """Apply the resources of the record, which have changed."""
        self._changed.set()

    async def run(self) -> None:
        """Apply changes until cancelled."""
        while True:
            await self._changed.wait()
            self._changed.clear()
            try:
                applied = [await self._apply(container) for container in self._attempts.containers()]
            except Exception:
                # A resize ends no group.
                log.exception("resizing group %s", self._record.id)
                applied = [False]
            if not all(applied):
                asyncio.get_running_loop().call_later(_AGAIN, self._changed.set)

    async def _apply(self, container: Container) -> bool:
        """Apply the resources of a container; return whether nothing is left to do."""
        status = self._attempts.status(container.name)
        wanted = container.properties.resource_requirements
        if wanted is None or status.resources in (None, wanted):
            return True  # it gets them when it starts
        if status.current_state.state != "Running":
            return status.current_state.state == "Terminated"
        if _demands_restart(container, status.resources, wanted):
            await self._restart(container.name, f"Container {container.name} resize requires restart")
            return True
        cid = self._attempts.cid(container.name)
        limits = control_group_limits(self._record.properties, container)
        failure = self._too_small(cid, limits["memory"].get("limit"))
        if not failure:
            try:
                await self._services.runtime.update(cid, msgspec.json.encode(limits))
            except RuntimeFailure as error:
                failure = str(error)
        await self._record_result(status, wanted, failure)
        return not failure

    def _too_small(self, cid: str, limit: int | None) -> str:
        """Return why a limit of memory cannot be applied: the kernel would kill the container. Empty if it can."""
        used = usage.memory(f"{self._parent}/{cid}")
        if limit is None or used is None or limit >= used:
            return ""
        return f"attempting to set container memory limit ({limit}) below current usage ({int(used)})"

    async def _record_result(self, status: ContainerStatus, wanted: ResourceRequirements, failure: str) -> None:
        if not failure:
            status.resources = wanted
        elif failure == status.resize_error:
            return
        status.resize_error = failure
        await self._save()


def _demands_restart(container: Container, old: ResourceRequirements | None, new: ResourceRequirements) -> bool:
    """Return whether a resource changes that the container's policy restarts it for."""
    if old is None:
        return False
    changed = set()
    for name, before, after in (
        ("cpu", (old.requests.millicores, old.limits.millicores), (new.requests.millicores, new.limits.millicores)),
        ("memory", (old.requests.bytes, old.limits.bytes), (new.requests.bytes, new.limits.bytes)),
    ):
        if before != after:
            changed.add(name)
    return any(
        policy.restart_policy == "RestartContainer" and policy.resource_name in changed
        for policy in container.properties.resize_policy
    )
