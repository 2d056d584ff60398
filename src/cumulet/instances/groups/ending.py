"""The end of an attempt: its hook, its signal and, after the grace period, SIGKILL, as the kubelet does it."""

from __future__ import annotations

import asyncio

from cumulet.instances.groups.attempts import Attempts
from cumulet.instances.groups.grace import Grace
from cumulet.instances.groups.hooks import Execute, run_hook
from cumulet.instances.groups.services import Services
from cumulet.instances.model.lifecycle import Handler
from cumulet.instances.store.records import GroupRecord

#: Seconds that a container has after its hook or its predecessors took the whole grace period.
_LEAST = 2.0


class Ending:
    """Ends the attempts of one container, each once: a second request can only shorten the grace period of the first."""

    def __init__(
        self, name: str, record: GroupRecord, attempts: Attempts, services: Services, execute: Execute
    ) -> None:
        self._name = name
        self._record = record
        self._attempts = attempts
        self._services = services
        self._execute = execute
        self._grace: Grace | None = None

    def shorten(self, seconds: float) -> None:
        """Shorten the grace period of a container that is being ended."""
        if self._grace is not None:
            self._grace.shorten(seconds)

    async def end(self, grace: Grace, why: str, turn: asyncio.Event | None = None) -> None:
        """End the newest attempt, unless it has ended, and record the event `Killing`.

        The hook runs at once. The signal waits for `turn`, within the grace period.
        """
        runtime, status = self._services.runtime, self._attempts.status(self._name)
        bundle, cid = self._attempts.bundle(self._name), self._attempts.cid(self._name)
        if status.stage != "started" or not runtime.is_running(bundle):
            return
        if self._grace is not None:
            self._grace.shorten(grace.left)
            await runtime.wait(cid, bundle)
            return
        self._grace = grace
        try:
            status.add_event("Killing", why)
            self._services.changed(self._record)
            if await self._prepare(grace, turn) and grace.left < _LEAST:
                self._grace = grace = Grace(_LEAST)
            if grace.left > 0:
                await runtime.kill(cid, status.stop_signal)
                if await grace.within(runtime.wait(cid, bundle)):
                    return
            await runtime.kill(cid)
            await runtime.wait(cid, bundle)
        finally:
            self._grace = None

    async def _prepare(self, grace: Grace, turn: asyncio.Event | None) -> bool:
        """Run the hook, then wait for the turn; return whether there was anything to wait for."""
        lifecycle = self._attempts.container(self._name).properties.lifecycle
        hook = lifecycle.pre_stop if lifecycle is not None else None
        if grace.left <= 0:
            return False
        if hook is not None:
            await grace.within(self._run(hook))
        if turn is not None:
            await grace.within(turn.wait())
        return hook is not None or turn is not None

    async def _run(self, hook: Handler) -> None:
        """Run the hook until it or the container ends; record a failure, without the output, as in the kubelet."""
        runtime = self._services.runtime
        ended = asyncio.create_task(runtime.wait(self._attempts.cid(self._name), self._attempts.bundle(self._name)))
        work = asyncio.create_task(run_hook(hook, self._record.status.ip, self._execute, self._services.targets))
        try:
            await asyncio.wait([ended, work], return_when=asyncio.FIRST_COMPLETED)
            if work.done() and not work.result():
                status = self._attempts.status(self._name)
                status.add_event("FailedPreStopHook", "PreStopHook failed", warning=True)
                self._services.changed(self._record)
        finally:
            for task in (ended, work):
                task.cancel()
            await asyncio.gather(ended, work, return_exceptions=True)
