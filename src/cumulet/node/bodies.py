"""The bodies of requests for the groups of pods: translated, with ephemeral containers, and strict where they have to be."""

from __future__ import annotations

from cumulet.common.config import Config
from cumulet.common.kubernetes.objects import Pod
from cumulet.common.kubernetes.support import Kind
from cumulet.node.aci import ContainerGroups
from cumulet.node.checks import check, published_group
from cumulet.node.ephemeral import EphemeralContainers, Report
from cumulet.node.pod_events import PodEvents
from cumulet.node.resource import ContainerGroup, GroupContainer
from cumulet.node.translate import Sources, container_group


class Bodies:
    """Makes the body of a pod's group, for its creation and for its updates."""

    def __init__(
        self,
        sources: Sources,
        config: Config,
        groups: ContainerGroups,
        ephemeral: EphemeralContainers,
        events: PodEvents,
        table: Kind,
    ) -> None:
        self._sources = sources
        self._config = config
        self._aci = groups
        self._ephemeral = ephemeral
        self._events = events
        self._table = table

    def is_strict(self) -> bool:
        """Return whether pods get what Azure has and no more: as configured, or because the provider is Azure's."""
        return self._config.strict_aci or not self._aci.has_extensions

    def check(self, pod: Pod) -> None:
        """Raises `RejectedError`, and `UnsupportedError` for fields that the node does not support."""
        check(pod, strict=self.is_strict(), table=self._table)

    async def of(self, pod: Pod, group: ContainerGroup | None) -> ContainerGroup:
        """Return the body for a pod that has this group or none. Raises `MissingError`, `UnsupportedError`."""
        body = await container_group(pod, self._sources, self._config)
        if added := self.ephemeral(pod, group):
            body["properties"]["ephemeralContainers"] = added
        return published_group(body) if self.is_strict() else body

    def ephemeral(self, pod: Pod, group: ContainerGroup | None) -> list[GroupContainer]:
        """Return the ephemeral containers that the group has or is to get; the others are reported."""
        return self._ephemeral.of(pod, group, self.reporter(pod), supported=not self.is_strict())

    def reporter(self, pod: Pod) -> Report:
        """Return what records a warning about an ephemeral container of a pod."""

        def report(name: str, message: str) -> None:
            self._events.once(pod, f"spec.ephemeralContainers{{{name}}}", "Warning", "Failed", message)

        return report
