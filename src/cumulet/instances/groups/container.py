"""The life of one container: its attempts, the back-off between them, its probes and its end."""

from __future__ import annotations

import asyncio
import signal
from typing import Literal

from cumulet.common import clock
from cumulet.common.tasks import Backoff
from cumulet.instances.groups import probes
from cumulet.instances.groups.attempts import Attempts
from cumulet.instances.groups.launch import Launcher
from cumulet.instances.groups.pulls import Pulls
from cumulet.instances.groups.services import Save, Services
from cumulet.instances.model.expansion import expanded
from cumulet.instances.model.properties import Container, Probe, RestartPolicy
from cumulet.instances.runtime.bundle import BundleError, forget_configuration, process_of
from cumulet.instances.runtime.conmon import RuntimeFailure
from cumulet.instances.sandbox.errors import SandboxError
from cumulet.instances.store.records import GroupRecord, State
from cumulet.instances.streams.execution import run_in

#: Seconds before the second attempt, and at most between two.
_FIRST, _LONGEST = 10, 300
#: Seconds after which a container that ran has a short back-off again.
_STABLE = 600.0
_ALWAYS, _NEVER = "Always", "Never"

ProbeKind = Literal["liveness", "readiness"]


class ContainerLife:
    """Runs one container of a group, and adopts an attempt that is running or has ended already."""

    def __init__(
        self,
        name: str,
        policy: RestartPolicy,
        record: GroupRecord,
        attempts: Attempts,
        pulls: Pulls,
        launcher: Launcher,
        services: Services,
        save: Save,
    ) -> None:
        self.name = name
        #: Set while the newest attempt has ended.
        self.ended = asyncio.Event()
        self._policy = policy
        self._record = record
        self._attempts = attempts
        self._pulls = pulls
        self._launcher = launcher
        self._services = services
        self._save = save
        self._stopping = False
        self._graces: set[asyncio.Timeout] = set()

    async def run_init(self) -> bool:
        """Run an init container until it succeeds; return whether it did."""
        status, backoff = self._attempts.status(self.name), Backoff(_FIRST, _LONGEST)
        while True:
            state = status.current_state
            if status.attempt and state.state == "Terminated" and state.exit_code == 0:
                return True
            if await self._attempt() == 0:
                return True
            if self._stopping or self._record.properties.restart_policy == _NEVER:
                return False
            await self._back_off(backoff.next())

    async def run(self) -> int:
        """Run the container as often as the restart policy demands; return the last exit code."""
        policy = self._policy
        backoff = Backoff(_FIRST, _LONGEST)
        state = self._attempts.status(self.name).current_state
        if policy == _NEVER and state.state == "Terminated" and state.exit_code is not None:
            self.ended.set()
            return state.exit_code
        if policy == _NEVER and state.state == "Running" and not self._is_adopted():
            await self._exited(None)  # it ended with its sandbox
            return self._attempts.status(self.name).current_state.exit_code or 0
        while True:
            code = await self._attempt()
            if self._stopping or policy == _NEVER or (policy != _ALWAYS and code == 0):
                return code
            if self._attempts.status(self.name).current_state.lived > _STABLE:
                backoff.reset()
            await self._back_off(backoff.next())

    async def stop(self, grace: float) -> None:
        """Stop the container for good, with `grace` seconds to end."""
        self._stopping = True
        await self._terminate(grace, f"Stopping container {self.name}")

    async def settle(self) -> None:
        """Record the end of an attempt that was stopped, unless the task of the container has recorded it."""
        if self._attempts.status(self.name).current_state.state == "Running":
            runtime = self._services.runtime
            await self._exited(await runtime.wait(self._attempts.cid(self.name), self._attempts.bundle(self.name)))

    def hasten(self, limit: float) -> None:
        """Shorten the grace of a container that is being stopped to that moment of the event loop's clock."""
        for grace in self._graces:
            if (until := grace.when()) is not None and limit < until:
                grace.reschedule(limit)

    async def fail(self, reason: str) -> None:
        """Kill the container because the group has failed, and record the reason."""
        status, runtime = self._attempts.status(self.name), self._services.runtime
        if status.attempt:
            await runtime.kill(self._attempts.cid(self.name))
            await runtime.wait(self._attempts.cid(self.name), self._attempts.bundle(self.name))
        if status.current_state.state != "Terminated":
            now, start = clock.rfc3339_micro(), status.current_state.start_time
            status.current_state = State("Terminated", "Error" if start else "StartError", start or now, now, 128)
            status.add_event("Failed", f"Error: {reason}", warning=True)
        status.ready = False
        self.ended.set()

    def process(self, command: list[str], *, tty: bool) -> bytes:
        """Return the description, for the runtime, of a further process in the container.

        It contains secure values. Raises `OSError`.
        """
        container = expanded(self._attempts.container(self.name), self._record.status.ip)
        return process_of(self._attempts.bundle(self.name), container, command, tty=tty)

    async def _back_off(self, seconds: float) -> None:
        status = self._attempts.status(self.name)
        status.previous_state = status.current_state
        status.current_state = State("Waiting", "CrashLoopBackOff")
        status.add_event("BackOff", f"Back-off restarting failed container {self.name}", warning=True)
        await self._save()
        await asyncio.sleep(seconds)

    async def _attempt(self) -> int:
        """Run one attempt, or the one that is running already, to its end; return its exit code."""
        container, status = self._attempts.container(self.name), self._attempts.status(self.name)
        if self._is_adopted():
            forget_configuration(self._attempts.bundle(self.name), container)
        else:
            image = await self._pulls.image(container)
            try:
                await self._launcher.launch(container, image)
            except (BundleError, RuntimeFailure, SandboxError, OSError) as error:
                return await self._not_started(str(error))
        self.ended.clear()
        watches = [
            asyncio.create_task(self._watch(probe, kind))
            for kind, probe in self._probes(container)
            if probe is not None
        ]
        try:
            code = await self._services.runtime.wait(self._attempts.cid(self.name), self._attempts.bundle(self.name))
        finally:
            for task in watches:
                task.cancel()
        await self._exited(code)
        return status.current_state.exit_code or 0

    def _is_adopted(self) -> bool:
        """Return whether an attempt of a previous process of this room is running, or has ended since."""
        status = self._attempts.status(self.name)
        return (
            status.attempt > 0
            and status.current_state.state == "Running"
            and self._services.runtime.is_known(self._attempts.cid(self.name), self._attempts.bundle(self.name))
        )

    @staticmethod
    def _probes(container: Container) -> list[tuple[ProbeKind, Probe | None]]:
        properties = container.properties
        return [("liveness", properties.liveness_probe), ("readiness", properties.readiness_probe)]

    async def _not_started(self, reason: str) -> int:
        status = self._attempts.status(self.name)
        now = clock.rfc3339_micro()
        status.add_event("Failed", f"Error: {reason}", warning=True)
        status.current_state = State("Terminated", "StartError", now, now, 128)
        status.ready = False
        await self._save()
        return 128

    async def _exited(self, code: int | None) -> None:
        status = self._attempts.status(self.name)
        killed = self._services.runtime.was_killed_for_memory(self._attempts.bundle(self.name))
        detail = "OOMKilled" if killed else "Completed" if code == 0 else "Error"
        if code is None:
            # No supervisor recorded the exit code, for example because the machine went down.
            code, detail = 137, "ContainerStatusUnknown"
        start = status.current_state.start_time
        finish = self._services.runtime.ended(self._attempts.cid(self.name)) or clock.now()
        status.current_state = State("Terminated", detail, start, clock.rfc3339_micro(finish), code)
        status.ready = False
        self.ended.set()
        await self._save()

    async def _watch(self, probe: Probe, kind: ProbeKind) -> None:
        """Run a probe until cancelled: readiness sets `ready`, a failed liveness probe ends the attempt."""
        status = self._attempts.status(self.name)

        async def execute(command: list[str]) -> int:
            description = self.process(command, tty=False)
            return await run_in(self._services.runtime, self._attempts.cid(self.name), description)

        failed = asyncio.Event()

        def report(healthy: bool) -> None:
            if kind == "readiness" and status.ready is not healthy:
                status.ready = healthy
                self._services.changed(self._record)
            elif kind == "liveness" and not healthy:
                failed.set()
            if not healthy:
                status.add_event("Unhealthy", f"{kind.capitalize()} probe failed", warning=True)
                self._services.changed(self._record)

        probing = asyncio.create_task(
            probes.repeat(probe, self._record.status.ip, execute, self._services.session, report)
        )
        try:
            await failed.wait()
            await self._terminate(
                self._record.properties.termination_grace_period_seconds,
                f"Container {self.name} failed liveness probe, will be restarted",
            )
        finally:
            probing.cancel()

    async def _terminate(self, grace: float, why: str) -> None:
        """Send SIGTERM, wait for `grace` seconds, then send SIGKILL and wait for the end."""
        runtime = self._services.runtime
        bundle, cid = self._attempts.bundle(self.name), self._attempts.cid(self.name)
        if not runtime.is_known(cid, bundle):
            return
        self._attempts.status(self.name).add_event("Killing", why)
        self._services.changed(self._record)
        if grace > 0:
            await runtime.kill(cid, signal.SIGTERM)
            try:
                async with asyncio.timeout(grace) as timeout:
                    self._graces.add(timeout)
                    await runtime.wait(cid, bundle)
                return
            except TimeoutError:
                pass
            finally:
                self._graces.discard(timeout)
        await runtime.kill(cid)
        await runtime.wait(cid, bundle)
