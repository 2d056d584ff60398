"""The life of one container: its attempts, the back-off between them, its hooks and probes, and its end.

Every step is recorded before it is taken, so that it can be continued from the record after any interruption. An attempt
whose start was requested is never started a second time.
"""

from __future__ import annotations

import asyncio
import logging

from cumulet.common import clock
from cumulet.common.tasks import Backoff, wait_for
from cumulet.instances.actions.result import MOST_OUTPUT, ActionError
from cumulet.instances.groups.attempts import Attempts
from cumulet.instances.groups.ending import Ending
from cumulet.instances.groups.failures import is_transient, reason_of, start_message
from cumulet.instances.groups.grace import Grace
from cumulet.instances.groups.health import Failed, Health
from cumulet.instances.groups.hooks import run_hook
from cumulet.instances.groups.launch import Launcher
from cumulet.instances.groups.pulls import Pulls
from cumulet.instances.groups.restarts import (
    back_off_message,
    begin_back_off,
    is_restarted,
    leave_back_off,
    pod_of,
)
from cumulet.instances.groups.services import Save, Services
from cumulet.instances.groups.termination import read_message
from cumulet.instances.model.expansion import expanded
from cumulet.instances.model.lifecycle import RestartPolicy
from cumulet.instances.model.properties import Container
from cumulet.instances.runtime.bundle import BundleError, forget_configuration, process_of
from cumulet.instances.runtime.conmon import RuntimeFailure, SupervisorFailure
from cumulet.instances.sandbox.errors import SandboxError
from cumulet.instances.store.records import ContainerStatus, GroupRecord, State
from cumulet.instances.streams.execution import ExecFailure, run_in
from cumulet.instances.streams.log_files import LogFiles

log = logging.getLogger(__name__)

#: The kubelet's reason and message for a container whose end nothing recorded.
_UNKNOWN_REASON = "ContainerStatusUnknown"
_UNKNOWN = "The container could not be located when the pod was terminated"


class ContainerLife:
    """Runs one container of a group, and adopts an attempt that is running or has ended already.

    `policy` is the group's restart policy for such a container.
    """

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
        #: Set when the container has started, as its startup probe or else its process shows.
        self.started = asyncio.Event()
        self._policy = policy
        self._record = record
        self._attempts = attempts
        self._pulls = pulls
        self._launcher = launcher
        self._services = services
        self._save = save
        self._ending = Ending(name, record, attempts, services, self._execute)
        self._stop: Grace | None = None
        self._stopping = asyncio.Event()
        self._overseen = False
        self._read_stage()

    @property
    def status(self) -> ContainerStatus:
        """The status of the container."""
        return self._attempts.status(self.name)

    @property
    def code(self) -> int | None:
        """The exit code of the newest attempt that has ended, or `None`."""
        end = self.status.last_end
        return end.exit_code if end is not None and self.status.stage == "ended" else None

    @property
    def is_over(self) -> bool:
        """Whether the container has ended and is not started again."""
        code = self.code
        return code is not None and not is_restarted(self._container.properties, self._policy, code)

    @property
    def was_started(self) -> bool:
        """Whether the start of any attempt was requested. An attempt gets its number before its sandbox is made."""
        return self.status.stage in ("started", "ended", "again") or self.status.restart_count > 0

    def give_up(self) -> None:
        """Record that the container is not started any more, as the kubelet does when a pod has ended."""
        status, now = self.status, clock.rfc3339_micro()
        status.current_state = State("Terminated", _UNKNOWN_REASON, None, now, 137, _UNKNOWN)
        status.stage, status.ready, status.started = "ended", False, False
        self.ended.set()

    async def record_end(self) -> None:
        """Wait for the end of an attempt that nobody watches over, and record it."""
        cid, bundle = self._attempts.cid(self.name), self._attempts.bundle(self.name)
        await self._exited(await self._services.runtime.wait(cid, bundle))

    async def run(self) -> int:
        """Run the container as often as its restart policy demands; return the last exit code.

        An unforeseen error is an event, and the work is continued from the record.
        """
        backoff = Backoff(1, 60)
        while True:
            try:
                return await self._run()
            except Exception as error:
                log.exception("container %s of group %s", self.name, self._record.id)
                reason = reason_of(error)
                if self.status.stage != "started":
                    self.status.current_state = State("Waiting", "CreateContainerError", message=reason)
                self.status.add_event("Failed", f"Error: {reason}", warning=True)
                self._services.changed(self._record)
                await wait_for(self._stopping, backoff.next())

    async def stop(self, grace: Grace, why: str | None = None, turn: asyncio.Event | None = None) -> None:
        """Stop the container for good. Its signal waits for `turn` within the grace period."""
        self._stop = grace
        self._stopping.set()
        await self._ending.end(grace, why or f"Stopping container {self.name}", turn)
        if self._overseen:
            await self.ended.wait()
        elif self.status.stage == "started":
            await self.record_end()

    async def restart(self, why: str) -> None:
        """End the newest attempt within the grace period of the group; the restart policy starts another one."""
        await self._ending.end(Grace(self._grace_period), why)

    def settle(self) -> None:
        """Show how the container ended instead of its wait for a start that does not come, as the kubelet does."""
        status = self.status
        if status.stage == "ended" and status.current_state.state == "Waiting" and status.previous_state is not None:
            status.current_state, status.previous_state = status.previous_state, None

    def hasten(self, seconds: float) -> None:
        """Shorten the grace of a container that is being stopped."""
        self._ending.shorten(seconds)

    async def fail(self, reason: str) -> None:
        """Kill the container because the group has failed, and record the reason."""
        status, runtime = self.status, self._services.runtime
        if status.attempt:
            await runtime.kill(self._attempts.cid(self.name))
            await runtime.wait(self._attempts.cid(self.name), self._attempts.bundle(self.name))
        if status.current_state.state != "Terminated":
            now, start = clock.rfc3339_micro(), status.current_state.start_time
            status.current_state = State("Terminated", "Error" if start else "StartError", start or now, now, 128)
            status.add_event("Failed", f"Error: {reason}", warning=True)
        status.ready = status.started = False
        status.stage = "ended"
        self.ended.set()

    def process(self, command: list[str], *, tty: bool) -> bytes:
        """Return the description, for the runtime, of a further process in the container.

        It contains secure values. Raises `OSError`.
        """
        container = expanded(self._attempts.container(self.name), self._record.status.ip)
        return process_of(self._attempts.bundle(self.name), container, command, tty=tty)

    async def _run(self) -> int:
        status = self.status
        if status.stage == "started":
            await self._oversee(adopted=True)
        while not self._stopping.is_set():
            if status.stage == "ended":
                code = self.code or 0
                if not is_restarted(self._container.properties, self._policy, code):
                    break
                await self._back_off()
                if self._stopping.is_set():
                    break
            await self._start()
            if status.stage == "started":
                await self._oversee()
        return self.code if self.code is not None else 137

    @property
    def _container(self) -> Container:
        return self._attempts.container(self.name)

    def _read_stage(self) -> None:
        """Derive the stage of an attempt of an earlier version, which recorded its start when it had started."""
        status = self.status
        if not status.stage and status.attempt:
            ended = status.current_state.state == "Terminated" or (
                status.current_state.detail_status == "CrashLoopBackOff" and status.previous_state is not None
            )
            status.stage = "ended" if ended else "started" if status.current_state.state == "Running" else "making"
        if status.stage == "ended":
            self.ended.set()

    async def _back_off(self) -> None:
        """Wait as long as the kubelet would, or until the container is stopped."""
        status = self.status
        seconds = begin_back_off(status)
        if seconds > 0:
            self._keep_end()
            message = back_off_message(status, self.name, self._record)
            status.current_state = State("Waiting", "CrashLoopBackOff", message=message)
            pod = pod_of(self._record)
            status.add_event(
                "BackOff", f"Back-off restarting failed container {self.name} in pod {pod}", warning=True
            )
            await self._save()
            if await wait_for(self._stopping, seconds):
                return
        leave_back_off(status)

    def _keep_end(self) -> None:
        """Keep how the attempt before ended."""
        if self.status.current_state.state == "Terminated":
            self.status.previous_state = self.status.current_state

    async def _start(self) -> None:
        """Make and start a new attempt; a failure that is final ends it."""
        container = self._container
        self._keep_end()
        image = await self._pulls.image(container)
        try:
            await self._launcher.launch(container, image)
        except SupervisorFailure:
            raise
        except (BundleError, RuntimeFailure, SandboxError, OSError) as error:
            if is_transient(error):
                raise
            await self._not_started(error)

    async def _not_started(self, error: Exception) -> None:
        """Record that an attempt could not be started, as containerd and the kubelet report it."""
        status, message = self.status, start_message(error)
        now = clock.rfc3339_micro()
        status.add_event("Failed", f"Error: {message}", warning=True)
        end = State("Terminated", "StartError", now, now, 128, message)
        properties = self._container.properties
        status.stage, status.ready, status.started = "ended", False, False
        if is_restarted(properties, self._policy, 128):
            status.previous_state = end
            status.current_state = State("Waiting", "RunContainerError", message=message)
        else:
            status.current_state = end
        self.ended.set()
        await self._save()

    async def _oversee(self, *, adopted: bool = False) -> None:
        """Watch over the newest attempt, whose start was requested, until its end is recorded."""
        status, runtime = self.status, self._services.runtime
        cid, bundle = self._attempts.cid(self.name), self._attempts.bundle(self.name)
        if adopted:
            forget_configuration(bundle, self._container)
            if status.current_state.state != "Running" and runtime.is_running(bundle):
                await self._launcher.start_again(self.name)
        self.ended.clear()
        self._overseen = True
        end = asyncio.create_task(runtime.wait(cid, bundle))
        care = asyncio.create_task(self._care(adopted=adopted))
        try:
            await asyncio.wait([end, care], return_when=asyncio.FIRST_COMPLETED)
            if care.done():
                care.result()  # raises its failure
            code = await end
        finally:
            for task in (end, care):
                task.cancel()
            await asyncio.gather(end, care, return_exceptions=True)
            self._overseen = False
        await self._exited(code)

    async def _care(self, *, adopted: bool) -> None:
        """Run the hook after the start and the probes, and end the attempt when one of them fails."""
        status, properties = self.status, self._container.properties
        hook = properties.lifecycle.post_start if properties.lifecycle is not None else None
        if hook is not None and not adopted:
            try:
                succeeded = await run_hook(hook, self._record.status.ip, self._execute, self._services.targets)
            except OSError as error:
                log.warning("the postStart hook of %s: %s", self.name, error)
                succeeded = False
            if not succeeded:
                status.add_event("FailedPostStartHook", "PostStartHook failed", warning=True)
                await self._ending.end(Grace(self._grace_period), "FailedPostStartHook")
                return
        if status.current_state.state != "Running":
            start = status.current_state.start_time or clock.rfc3339_micro()
            status.current_state = State("Running", "", start_time=start)
            if properties.startup_probe is None:
                status.started = True
                status.ready = properties.readiness_probe is None
            await self._save()
        if status.started:
            self.started.set()
        if self._stop is not None:
            await self._ending.end(self._stop, f"Stopping container {self.name}")
            return
        await self._end_unhealthy(await self._health().until_failed())

    def _health(self) -> Health:
        async def save(*, soon: bool = False) -> None:
            await self._save(soon=soon)
            self.started.set()

        def changed() -> None:
            self._services.changed(self._record)

        return Health(
            self._container.properties,
            self.status,
            self._record.status.ip,
            self._execute,
            self._services.targets,
            changed,
            save,
        )

    async def _end_unhealthy(self, failed: Failed) -> None:
        probe = failed.probe
        grace = probe.termination_grace_period_seconds or self._grace_period
        why = f"Container {self.name} failed {failed.kind} probe"
        # The exit code of a process that is ended by a signal.
        if is_restarted(self._container.properties, self._policy, 137):
            why += ", will be restarted"
        await self._ending.end(Grace(grace), why)

    @property
    def _grace_period(self) -> int:
        return self._record.properties.termination_grace_period_seconds

    async def _execute(self, command: list[str]) -> tuple[int, bytes]:
        """Run a command in the container. Raises `ActionError`."""
        cid = self._attempts.cid(self.name)
        try:
            return await run_in(self._services.runtime, cid, self.process(command, tty=False), limit=MOST_OUTPUT)
        except (ExecFailure, OSError) as error:
            raise ActionError(f"failed to exec in container: {error}") from None

    async def _exited(self, code: int | None) -> None:
        status, bundle = self.status, self._attempts.bundle(self.name)
        targets = self._container.properties.target_container_name is not None
        if targets or self._record.properties.share_process_namespace:
            await self._services.runtime.kill_all(self._attempts.cid(self.name))
        if code is None:
            # No supervisor recorded the exit code: the machine went down, or the supervisor was killed. Its container may
            # run on, without a log, and must not.
            await self._services.runtime.remove(self._attempts.cid(self.name))
            code, detail, message = 137, _UNKNOWN_REASON, _UNKNOWN
        else:
            killed = self._services.runtime.was_killed_for_memory(bundle)
            detail = "OOMKilled" if killed else "Completed" if code == 0 else "Error"
            properties = self._container.properties
            message = await read_message(bundle, LogFiles(self._attempts.log(self.name)), properties, code)
        start = status.current_state.start_time
        finish = self._services.runtime.ended(self._attempts.cid(self.name)) or clock.now()
        status.current_state = State("Terminated", detail, start, clock.rfc3339_micro(finish), code, message)
        status.stage, status.ready, status.started = "ended", False, False
        self.started.clear()
        self.ended.set()
        await self._save()
