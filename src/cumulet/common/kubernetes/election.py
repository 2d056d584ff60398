"""Leader election by a Lease (coordination.k8s.io/v1), as client-go's `leaderelection`: of several copies one works.

The holder renews the lease every `RETRY` seconds. Another takes it once the holder has given it up, or has not renewed it
for as long as the lease itself says. A holder that could not renew for `DEADLINE` seconds stops before that.

A copy is known by its host and the address on which it listens, which only one process can have. So the successor of a
copy that was killed goes on at once, with the lease of its predecessor.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import time
from collections.abc import Callable

import aiohttp

from cumulet.common import clock
from cumulet.common.config import Address
from cumulet.common.kubernetes.client import LEASES, Client, KubernetesError, Object
from cumulet.common.kubernetes.informer import Informer
from cumulet.common.room import Room
from cumulet.common.tasks import TaskSet, task_set, wait_for

log = logging.getLogger(__name__)

NAMESPACE = "kube-system"

#: Seconds, upstream's: for which a lease is good, within which it must be renewed, and between two renewals.
DURATION = 15
DEADLINE = 10.0
RETRY = 2.0


class LostError(Exception):
    """The lease could not be renewed in time, or another has it: this copy must stop."""


class Election:
    """One copy's part in the election of one component."""

    def __init__(self, client: Client, component: str, address: Address) -> None:
        self.identity = f"{socket.gethostname()}_{address.host}:{address.port}"
        self.leading = asyncio.Event()
        self._client = client
        self._component = component
        self._changed = asyncio.Event()
        self._informer = Informer(client, LEASES, NAMESPACE, field_selector=f"metadata.name={component}")
        self._informer.add_handler(self._seen)
        self._seen_at = 0.0

    def _seen(self, change: str, lease: Object, old: Object | None) -> None:
        # When the holder renewed is judged by this machine's clock: those of two machines may differ.
        if old is None or _renewal(lease) != _renewal(old):
            self._seen_at = time.monotonic()
        self._changed.set()

    async def run(self) -> None:
        """Become the leader when it is possible and stay it until cancelled. Raises `LostError` where that fails."""
        async with task_set() as tasks:
            tasks.start_essential(self._informer.run(), f"lease {self._component}")
            await self._informer.synced.wait()
            held = await self._acquire()
            self.leading.set()
            log.info("%s leads as %s", self._component, self.identity)
            try:
                await self._keep(held)
            except asyncio.CancelledError:
                await self._release()
                raise

    async def _acquire(self) -> Object:
        while True:
            self._changed.clear()
            lease = self._informer.get(self._component, NAMESPACE)
            try:
                if lease is None:
                    return await self._create()
                left = self._left(lease)
                if left <= 0:
                    return await self._take(lease)
            except KubernetesError as error:
                if error.code != 409:
                    log.warning("lease %s: %s", self._component, error)
                left = RETRY
            except (aiohttp.ClientError, TimeoutError, OSError) as error:
                log.info("lease %s: %s: %s", self._component, type(error).__name__, error)
                left = RETRY
            await wait_for(self._changed, left)

    def _left(self, lease: Object) -> float:
        """Seconds for which the lease is another's."""
        spec = lease.get("spec") or {}
        holder = spec.get("holderIdentity")
        if not holder or holder == self.identity:
            return 0.0
        return self._seen_at + float(spec.get("leaseDurationSeconds") or DURATION) - time.monotonic()

    async def _create(self) -> Object:
        now = clock.rfc3339_micro()
        spec = self._spec({"acquireTime": now, "leaseTransitions": 0})
        return await self._client.create(
            LEASES, {"metadata": {"name": self._component, "namespace": NAMESPACE}, "spec": spec}
        )

    async def _take(self, lease: Object) -> Object:
        spec = dict(lease.get("spec") or {})
        if spec.get("holderIdentity") != self.identity:
            spec |= {
                "acquireTime": clock.rfc3339_micro(),
                "leaseTransitions": spec.get("leaseTransitions", 0) + 1,
            }
        return await self._client.update(LEASES, {**lease, "spec": self._spec(spec)})

    def _spec(self, spec: Object) -> Object:
        return {
            **spec,
            "holderIdentity": self.identity,
            "leaseDurationSeconds": DURATION,
            "renewTime": clock.rfc3339_micro(),
        }

    async def _keep(self, held: Object) -> None:
        renewed = time.monotonic()
        while True:
            await asyncio.sleep(RETRY)
            try:
                async with asyncio.timeout_at(asyncio.get_running_loop().time() + DEADLINE):
                    held = await self._client.update(LEASES, {**held, "spec": self._spec(held["spec"])})
                renewed = time.monotonic()
                continue
            except KubernetesError as error:
                if error.code in (404, 409):
                    held = await self._again(held, error)
                    continue
                failure: Exception = error
            except (aiohttp.ClientError, TimeoutError, OSError) as error:
                failure = error
            log.warning("lease %s not renewed: %s: %s", self._component, type(failure).__name__, failure)
            if time.monotonic() - renewed > DEADLINE:
                raise LostError(f"the lease {self._component} could not be renewed for {DEADLINE:.0f} s")

    async def _again(self, held: Object, error: KubernetesError) -> Object:
        """The lease was changed or deleted by somebody: it is still ours, or lost."""
        if error.code == 404:
            return await self._create()
        lease = await self._client.get(LEASES, self._component, NAMESPACE)
        if (lease.get("spec") or {}).get("holderIdentity") not in (self.identity, "", None):
            raise LostError(f"the lease {self._component} is held by {lease['spec']['holderIdentity']}")
        return await self._take(lease)

    async def _release(self) -> None:
        """Give the lease up, so that another need not wait until it has run out."""
        with contextlib.suppress(KubernetesError, aiohttp.ClientError, TimeoutError, OSError):
            async with asyncio.timeout(1):
                lease = await self._client.get(LEASES, self._component, NAMESPACE)
                if (lease.get("spec") or {}).get("holderIdentity") == self.identity:
                    spec = {**lease["spec"], "holderIdentity": "", "leaseDurationSeconds": 1}
                    await self._client.update(LEASES, {**lease, "spec": spec})


def _renewal(lease: Object) -> tuple[object, object]:
    spec = lease.get("spec") or {}
    return spec.get("holderIdentity"), spec.get("renewTime")


async def lead(client: Client, component: str, room: Room, work: Callable[[TaskSet], None]) -> None:
    """Stand for election until the room is to stop; once this copy leads, run what `work` starts.

    The work ends before the lease is given up. Where the lead is lost the process stops, so that whoever supervises it
    starts it anew as one that waits.
    """
    host, port = room.listeners[0].getsockname()[:2]
    election = Election(client, component, Address(host, port))
    async with task_set() as standing:
        standing.start_essential(election.run(), f"election {component}")
        async with task_set() as working:

            async def begin() -> None:
                await election.leading.wait()
                work(working)

            working.start_essential(begin(), component)
            await room.stopping.wait()
