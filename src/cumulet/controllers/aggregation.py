"""Cluster roles with an aggregation rule get the rules of the selected roles (`pkg/controller/clusterroleaggregation`)."""

from __future__ import annotations

from cumulet.common.kubernetes import KubernetesError, WorkQueue
from cumulet.common.kubernetes.client import CLUSTERROLES
from cumulet.common.kubernetes.objects import ClusterRole, PolicyRule
from cumulet.common.kubernetes.selection import selects
from cumulet.controllers.controller import Context, Key, key_of


class RoleAggregationController:
    """The controller of aggregated cluster roles."""

    def __init__(self, context: Context) -> None:
        self.queue: WorkQueue[Key] = WorkQueue()
        self._client = context.client
        self._roles = context.informer(CLUSTERROLES)
        self._roles.add_handler(self._changed)

    def _changed(self, change: str, role: ClusterRole, old: ClusterRole | None) -> None:
        # Any role can belong to any aggregated role. There are few aggregated roles.
        for other in self._roles:
            if other.get("aggregationRule"):
                self.queue.add(key_of(other))

    async def reconcile(self, key: Key) -> None:
        """Write the rules if they changed."""
        role = self._roles.get(key[1])
        if role is None or not role.get("aggregationRule"):
            return
        rules: list[PolicyRule] = []
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


def _belongs(role: ClusterRole, aggregate: ClusterRole) -> bool:
    labels = role["metadata"].get("labels") or {}
    return any(
        selects(selector, labels) for selector in aggregate["aggregationRule"].get("clusterRoleSelectors") or ()
    )
