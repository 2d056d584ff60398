"""Cluster roles that aggregate others have the rules of those (`pkg/controller/clusterroleaggregation`)."""

from __future__ import annotations

from cumulet.common.kubernetes import KubernetesError, WorkQueue
from cumulet.common.kubernetes.client import CLUSTERROLES
from cumulet.common.kubernetes.selection import selects
from cumulet.controllers.controller import Context, Key, Object, key_of


class RoleAggregationController:
    """See the module."""

    def __init__(self, context: Context) -> None:
        self.queue: WorkQueue[Key] = WorkQueue()
        self._client = context.client
        self._roles = context.informer(CLUSTERROLES)
        self._roles.add_handler(self._changed)

    def _changed(self, change: str, role: Object, old: Object | None) -> None:
        # Any role may belong to any that aggregates; there are few of those.
        for other in self._roles:
            if other.get("aggregationRule"):
                self.queue.add(key_of(other))

    async def reconcile(self, key: Key) -> None:
        """Write the rules where they are others."""
        role = self._roles.get(key[1])
        if role is None or not role.get("aggregationRule"):
            return
        rules: list[Object] = []
        for other in sorted(self._roles, key=key_of):
            if key_of(other) != key and _belongs(other, role):
                rules += [rule for rule in other.get("rules") or () if rule not in rules]
        if rules == (role.get("rules") or []):
            return
        try:
            await self._client.patch(CLUSTERROLES, key[1], {"rules": rules})
        except KubernetesError as error:
            if error.code != 404:
                raise


def _belongs(role: Object, aggregate: Object) -> bool:
    labels = role["metadata"].get("labels") or {}
    return any(
        selects(selector, labels) for selector in aggregate["aggregationRule"].get("clusterRoleSelectors") or ()
    )
