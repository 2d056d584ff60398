"""Watches pods, namespaces and policies, and keeps the table as they ask for.

All changes that arrive while a transaction runs are in the next one. The table stays when the room stops, and the first
transaction of the next run replaces it. It is loaded again when another program removes it.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import logging
import os
from collections.abc import AsyncIterator

from cumulet.common import nftables, router
from cumulet.common.kubernetes.informer import Change, Handler
from cumulet.common.kubernetes.objects import NetworkPolicy, PartialObjectMetadata
from cumulet.common.namespaces import inside
from cumulet.common.nftables import Nftables, NftablesError
from cumulet.common.table_watch import IPV4, TableKeeper, TableWatch
from cumulet.common.tasks import Backoff
from cumulet.network.cluster import Cluster
from cumulet.network.policy.compiler import Compiler
from cumulet.network.policy.model import parse_policy
from cumulet.network.policy.pods import member_of
from cumulet.network.policy.rules import Places
from cumulet.network.policy.ruleset import NAME, Ruleset, difference

log = logging.getLogger(__name__)

#: The objects that are compiled before other tasks have their turn.
_TURN = 50


@contextlib.asynccontextmanager
async def running(cluster: Cluster) -> AsyncIterator[None]:
    """Enforce the policies of a cluster; those that exist are in effect when the block begins.

    Where there is no router, for lack of root or nftables, each policy gets an event that it has no effect. Raises
    `RouterError`, `NftablesError`.
    """
    config = cluster.config
    if os.geteuid() != 0 or nftables.missing() is not None:
        cluster.policies.add_handler(lambda change, obj, old: _tell(cluster, change, obj))
        yield
        return
    await asyncio.to_thread(router.ensure, config)
    pods = ipaddress.IPv4Network(config.pod_cidr)
    places = Places(router.gateway(config), router.machine_address(config), pods)
    with contextlib.ExitStack() as stack:
        namespace = router.namespace_name(config)
        table = PolicyTable(cluster, Compiler(places), stack.enter_context(Nftables(namespace)))
        watch = inside(namespace, lambda: TableWatch(NAME, (IPV4,)))
        stack.callback(TableKeeper(watch, table.lock, table.load_whole).close)
        await table.load()
        cluster.tasks.start_essential(table.run(), "network policies")
        yield


class PolicyTable:
    """The table of one router, and the objects that changed since its last transaction.

    The compiler changes only under `lock`, so that it stands still while a transaction runs.
    """

    def __init__(self, cluster: Cluster, compiler: Compiler, rules: Nftables) -> None:
        self._cluster = cluster
        self._compiler = compiler
        self._rules = rules
        self._pending: set[tuple[str, str, str]] = set()
        self._changed = asyncio.Event()
        #: What the kernel has, or `None` if that is not known.
        self._loaded: Ruleset | None = None
        self.lock = asyncio.Lock()
        cluster.pods.add_handler(self._handler("pod"))
        cluster.namespaces.add_handler(self._handler("namespace"))
        cluster.policies.add_handler(self._handler("policy"))

    async def run(self) -> None:
        """Load changes as they come, until cancelled. After a failure, the whole table is loaded."""
        backoff = Backoff(0.05, 5)
        while True:
            await self._changed.wait()
            try:
                await self.load()
                backoff.reset()
            except NftablesError as error:
                log.error("network policies cannot be loaded; the rules before stay: %s", error)
                await backoff.wait()
                self._changed.set()

    async def load(self) -> None:
        """Load what changed in one transaction, or everything. Raises `NftablesError`."""
        async with self.lock:
            self._changed.clear()
            await self._compile()
            if (loaded := self._loaded) is None:
                await self.load_whole()
                return
            touched, wanted = self._compiler.touched(), self._compiler.ruleset
            if script := difference(loaded, wanted, touched):
                self._loaded = None
                await self._rules.run(script)
                loaded.update(wanted, touched)
                self._loaded = loaded

    async def load_whole(self) -> None:
        """Replace the table, under `lock`. Raises `NftablesError`."""
        self._loaded = None
        self._compiler.touched()
        await self._rules.run(self._compiler.ruleset.script())
        self._loaded = self._compiler.ruleset.copy()

    async def _compile(self) -> None:
        """Tell the compiler what changed: namespaces first, which decide on pods, then pods, then policies."""
        pending, self._pending = self._pending, set()
        for number, (kind, namespace, name) in enumerate(sorted(pending)):
            if number % _TURN == _TURN - 1:
                await asyncio.sleep(0)  # the first of many thousands take seconds, in which the room answers others
            key = namespace, name
            if kind == "namespace":
                found = self._cluster.namespaces.get(name)
                self._compiler.set_namespace(name, None if found is None else found["metadata"].get("labels") or {})
            elif kind == "pod":
                pod = self._cluster.pods.get(name, namespace)
                self._compiler.set_pod(key, None if pod is None else member_of(pod))
            else:
                policy = self._cluster.policies.get(name, namespace)
                self._compiler.set_policy(key, None if policy is None else parse_policy(policy))

    def _handler(self, kind: str) -> Handler[PartialObjectMetadata]:
        def changed(change: Change, obj: PartialObjectMetadata, old: PartialObjectMetadata | None) -> None:
            metadata = obj["metadata"]
            self._pending.add((kind, metadata.get("namespace", ""), metadata["name"]))
            self._changed.set()

        return changed


def _tell(cluster: Cluster, change: Change, policy: NetworkPolicy) -> None:
    if change == "ADDED":
        why = "The policy has no effect: network policies need root and nftables on the machine of the pods."
        cluster.events.event(policy, "Warning", "PolicyNotEnforced", why)
