"""Who asks: a pod of the cluster, a container group of no cluster, the machine, or a stranger."""

from __future__ import annotations

import asyncio
import ipaddress
from collections import Counter
from collections.abc import Collection
from enum import Enum

from cumulet.common.kubernetes import Informer
from cumulet.common.kubernetes.informer import Change
from cumulet.common.kubernetes.objects import Pod
from cumulet.common.tasks import wait_for

#: Seconds in which the API server learns the address of a pod that asks as soon as it starts.
PATIENCE = 4.0
#: Clients whose questions wait for that.
_WAITING = 256


class Scope(Enum):
    """The names that a client can ask for."""

    CLUSTER = "all"
    OTHERS = "all but the cluster's"
    NOTHING = "none: no answer goes to such an address"


class _Waiting:
    """The questions of a client that may become known as a pod."""

    def __init__(self) -> None:
        self.known = asyncio.Event()
        self.questions = 0


class Clients:
    """Tells the addresses of a cluster's pods from those of other container groups, which come from the same range."""

    def __init__(self, pods: Informer[Pod], pod_range: ipaddress.IPv4Network, machine: Collection[str]) -> None:
        self._range, self._machine = pod_range, frozenset(machine)
        self._addresses: Counter[str] = Counter()
        self._waiting: dict[str, _Waiting] = {}
        self._scopes: dict[str, Scope] = {}
        pods.add_handler(self._changed)

    def scope(self, source: str) -> Scope:
        """Return what the client at an address can ask for, as far as it is known now."""
        known = self._scopes.get(source)
        if known is None:
            known = self._scope(source)
            if known is not Scope.NOTHING:  # of which there are any number
                self._scopes[source] = known
        return known

    async def settled(self, source: str) -> Scope:
        """Return the same, but wait a while for the pod at the address to become known."""
        scope = self.scope(source)
        if scope is not Scope.OTHERS:
            return scope
        waiting = self._waiting.get(source)
        if waiting is None:
            if len(self._waiting) >= _WAITING:
                return scope
            waiting = self._waiting[source] = _Waiting()
        waiting.questions += 1
        try:
            await wait_for(waiting.known, PATIENCE)
        finally:
            waiting.questions -= 1
            if not waiting.questions:
                self._waiting.pop(source, None)
        return self.scope(source)

    def _scope(self, source: str) -> Scope:
        if source in self._machine or self._addresses[source] > 0:
            return Scope.CLUSTER
        try:
            inside = ipaddress.IPv4Address(source) in self._range
        except ValueError:
            inside = False
        return Scope.OTHERS if inside else Scope.NOTHING

    def _changed(self, change: Change, pod: Pod, old: Pod | None) -> None:
        before = set() if old is None else _addresses_of(old)
        after = set() if change == "DELETED" else _addresses_of(pod)
        for address in before - after:
            self._addresses[address] -= 1
            if self._addresses[address] <= 0:
                del self._addresses[address]
        for address in after - before:
            self._addresses[address] += 1
        for address in before ^ after:
            self._scopes.pop(address, None)
            if (waiting := self._waiting.get(address)) is not None:
                waiting.known.set()


def _addresses_of(pod: Pod) -> set[str]:
    """Return the addresses that a pod holds; one that has ended has given them back."""
    status = pod.get("status") or {}
    if status.get("phase") in ("Succeeded", "Failed"):
        return set()
    return {item["ip"] for item in status.get("podIPs") or () if item.get("ip")} | {
        address for address in [status.get("podIP")] if address
    }
