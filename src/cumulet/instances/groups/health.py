"""The schedule of a container's probes: startup first, then liveness and readiness, with the kubelet's thresholds and events."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Literal, NamedTuple

from cumulet.common import clock
from cumulet.instances.actions import grpc, http, tcp
from cumulet.instances.actions.result import ActionError, Result, duration
from cumulet.instances.actions.targets import Targets
from cumulet.instances.groups.hooks import Execute
from cumulet.instances.groups.services import Save
from cumulet.instances.model.lifecycle import Probe
from cumulet.instances.model.properties import ContainerProperties
from cumulet.instances.store.records import ContainerStatus

ProbeKind = Literal["startup", "liveness", "readiness"]


class Failed(NamedTuple):
    """The probe whose failure ends the container."""

    kind: ProbeKind
    probe: Probe


class Health:
    """The probes of one attempt. `changed` publishes the status, `save` also writes it."""

    def __init__(
        self,
        properties: ContainerProperties,
        status: ContainerStatus,
        address: str,
        execute: Execute,
        targets: Targets,
        changed: Callable[[], None],
        save: Save,
    ) -> None:
        self._properties = properties
        self._status = status
        self._address = address
        self._execute = execute
        self._targets = targets
        self._changed = changed
        self._save = save

    async def until_failed(self) -> Failed:
        """Probe until a startup or liveness probe fails, which it returns; without such a probe until it is cancelled."""
        properties, status = self._properties, self._status
        if not status.started:
            if properties.startup_probe is not None and not await self._starts(properties.startup_probe):
                return Failed("startup", properties.startup_probe)
            status.started = True
            status.ready = properties.readiness_probe is None
            await self._save()
        failed: asyncio.Future[Failed] = asyncio.get_running_loop().create_future()
        liveness, readiness = properties.liveness_probe, properties.readiness_probe

        def alive(healthy: bool) -> None:
            if liveness is not None and not healthy and not failed.done():
                failed.set_result(Failed("liveness", liveness))

        def ready(healthy: bool) -> None:
            if status.ready is not healthy:
                status.ready = healthy
                self._changed()

        async with asyncio.TaskGroup() as tasks:
            probing = []
            if liveness is not None:
                probing.append(tasks.create_task(self._repeat("liveness", liveness, alive)))
            if readiness is not None:
                probing.append(tasks.create_task(self._repeat("readiness", readiness, ready)))
            found = await failed
            for task in probing:
                task.cancel()
        return found

    async def _starts(self, probe: Probe) -> bool:
        """Probe until a result reaches its threshold, and return it."""
        result: asyncio.Future[bool] = asyncio.get_running_loop().create_future()

        def report(healthy: bool) -> None:
            if not result.done():
                result.set_result(healthy)

        async with asyncio.TaskGroup() as tasks:
            probing = tasks.create_task(self._repeat("startup", probe, report))
            healthy = await result
            probing.cancel()
        return healthy

    async def _repeat(self, kind: ProbeKind, probe: Probe, report: Callable[[bool], object]) -> None:
        """Probe until cancelled; call `report` with each result that reaches its threshold."""
        await asyncio.sleep(self._delay(probe))
        loop, period = asyncio.get_running_loop(), max(probe.period_seconds, 1)
        last, run = False, 0
        while True:
            due = loop.time() + period
            healthy = await self._try(kind, probe)
            if healthy is not None:
                last, run = healthy, run + 1 if healthy is last else 1
                if run >= (probe.success_threshold if healthy else probe.failure_threshold):
                    report(healthy)
            await asyncio.sleep(max(due - loop.time(), 0))

    def _delay(self, probe: Probe) -> float:
        """Return the seconds until the first probe, which are counted from the start of the container."""
        start = self._status.current_state.start_time
        since = (clock.now() - clock.parse(start)).total_seconds() if start else 0.0
        return min(max(probe.initial_delay_seconds - since, 0.0), float(probe.initial_delay_seconds))

    async def _try(self, kind: ProbeKind, probe: Probe) -> bool | None:
        """Probe once; return the result, or `None` if there is none, and record the kubelet's event."""
        name = kind.capitalize()
        try:
            outcome, output = await self._probe(probe)
        except ActionError as error:
            self._event("Unhealthy", f"{name} probe errored and resulted in unknown state: {error}")
            return None
        if outcome == "warning":
            self._event("ProbeWarning", f"{name} probe warning: {output}")
        elif outcome == "failure":
            self._event("Unhealthy", f"{name} probe failed: {output}")
        return outcome != "failure"

    def _event(self, reason: str, message: str) -> None:
        self._status.add_event(reason, message, warning=True)
        self._changed()

    async def _probe(self, probe: Probe) -> Result:
        timeout = max(probe.timeout_seconds, 1)
        if probe.http_get is not None:
            return await http.get(probe.http_get, self._address, self._targets, timeout, "probe")
        if probe.tcp_socket is not None:
            return await tcp.dial(probe.tcp_socket, self._address, self._targets, timeout)
        if probe.grpc is not None:
            return await grpc.check(probe.grpc, self._address, self._targets, timeout)
        command = probe.exec.command if probe.exec is not None else []
        try:
            async with asyncio.timeout(timeout):
                code, output = await self._execute(command)
        except TimeoutError:
            line = " ".join(command).replace("\\", "\\\\").replace('"', '\\"')
            return Result("failure", f'command timed out: "{line}" timed out after {duration(timeout)}')
        return Result("failure" if code else "success", output.decode(errors="replace"))
