"""Leader election by a Lease (coordination.k8s.io/v1), as in client-go's `leaderelection`: one of several copies works.

The holder renews the lease every `RETRY` seconds. Another copy takes it once the holder has released it, or has not renewed
it for the duration in the lease. A holder that cannot renew it for `DEADLINE` seconds stops before that.

The identity of a copy is its host and the address on which it listens, which only one process can have. A copy that replaces
a killed one therefore continues at once with the same lease.
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
from cumulet.common.kubernetes.client import LEASES, Client, KubernetesError
from cumulet.common.kubernetes.informer import Informer
from cumulet.common.kubernetes.objects import Lease, LeaseSpec
from cumulet.common.room import Room
from cumulet.common.tasks import TaskSet, task_set, wait_for

log = logging.getLogger(__name__)

NAMESPACE = "kube-system"

#: Seconds, as upstream: the duration of a lease, the deadline of its renewal, the interval of renewals.
DURATION = 15
DEADLINE = 10.0
RETRY = 2.0


class LostError(Exception):
    """The lease was not renewed in time, or another copy holds it: this copy must stop."""


class Election:
    """The participation of one copy in the election of one component."""

    def __init__(self, client: Client, component: str, address: Address) -> None:
        self.identity = f"{socket.gethostname()}_{address.host}:{address.port}"
        self.leading = asyncio.Event()
        self._client = client
        self._component = component
        self._changed = asyncio.Event()
        self._informer = Informer(client, LEASES, NAMESPACE, field_selector=f"metadata.name={component}")
        self._informer.add_handler(self._seen)
        self._seen_at = 0.0

    def _seen(self, change: str, lease: Lease, old: Lease | None) -> None:
        # The time of a renewal is taken from the local clock, because the clocks of two machines may differ.
        if old is None or _renewal(lease) != _renewal(old):
            self._seen_at = time.monotonic()
        self._changed.set()

    async def run(self) -> None:
        """Become the leader when possible, and remain it until cancelled. Raises `LostError`."""
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

    async def _acquire(self) -> Lease:
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

    def _left(self, lease: Lease) -> float:
        """The seconds for which another copy still holds the lease."""
        spec = lease.get("spec") or {}
        holder = spec.get("holderIdentity")
        if not holder or holder == self.identity:
            return 0.0
        return self._seen_at + float(spec.get("leaseDurationSeconds") or DURATION) - time.monotonic()

    async def _create(self) -> Lease:
        spec = self._spec({"acquireTime": clock.rfc3339_micro(), "leaseTransitions": 0})
        return await self._client.create(
            LEASES, {"metadata": {"name": self._component, "namespace": NAMESPACE}, "spec": spec}
        )

    async def _take(self, lease: Lease) -> Lease:
        spec: LeaseSpec = {**(lease.get("spec") or {})}
        if spec.get("holderIdentity") != self.identity:
            spec["acquireTime"] = clock.rfc3339_micro()
            spec["leaseTransitions"] = spec.get("leaseTransitions", 0) + 1
        return await self._client.update(LEASES, {**lease, "spec": self._spec(spec)})

    def _spec(self, spec: LeaseSpec) -> LeaseSpec:
        return {
            **spec,
            "holderIdentity": self.identity,
            "leaseDurationSeconds": DURATION,
            "renewTime": clock.rfc3339_micro(),
        }

    async def _keep(self, held: Lease) -> None:
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
                    held = await self._again(error)
                    continue
                failure: Exception = error
            except (aiohttp.ClientError, TimeoutError, OSError) as error:
                failure = error
            log.warning("lease %s not renewed: %s: %s", self._component, type(failure).__name__, failure)
            if time.monotonic() - renewed > DEADLINE:
                raise LostError(f"the lease {self._component} could not be renewed for {DEADLINE:.0f} s")

    async def _again(self, error: KubernetesError) -> Lease:
        """Hold the lease again after another client changed or deleted it. Raises `LostError` if it has another holder."""
        if error.code == 404:
            return await self._create()
        lease = await self._client.get(LEASES, self._component, NAMESPACE)
        if (lease.get("spec") or {}).get("holderIdentity") not in (self.identity, "", None):
            raise LostError(f"the lease {self._component} is held by {lease['spec']['holderIdentity']}")
        return await self._take(lease)

    async def _release(self) -> None:
        """Release the lease, so that another copy need not wait for its expiry."""
        with contextlib.suppress(KubernetesError, aiohttp.ClientError, TimeoutError, OSError):
            async with asyncio.timeout(1):
                lease = await self._client.get(LEASES, self._component, NAMESPACE)
                if (lease.get("spec") or {}).get("holderIdentity") == self.identity:
                    spec: LeaseSpec = {**lease["spec"], "holderIdentity": "", "leaseDurationSeconds": 1}
                    released: Lease = {**lease, "spec": spec}
                    await self._client.update(LEASES, released)


def _renewal(lease: Lease) -> tuple[object, object]:
    spec = lease.get("spec") or {}
    return spec.get("holderIdentity"), spec.get("renewTime")


async def lead(client: Client, component: str, room: Room, work: Callable[[TaskSet], None]) -> None:
    """Take part in the election until the room stops. `work` starts the tasks that run while this copy leads.

    The tasks end before the lease is released. If the lease is lost the process stops, and its supervisor restarts it as
    a candidate.
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
