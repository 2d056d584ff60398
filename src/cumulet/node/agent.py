"""One node of the room: its registration, its pods, and its kubelet's API."""

from __future__ import annotations

import contextlib
import logging
import socket
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path

import aiohttp
import msgspec

from cumulet.common.config import KUBELET_CLIENT, AuthorityName, Config
from cumulet.common.kubernetes import Client, KubernetesError
from cumulet.common.kubernetes.client import NODES
from cumulet.common.kubernetes.informer import AnyInformer
from cumulet.common.room import Room
from cumulet.common.tasks import Backoff, TaskSet
from cumulet.node.access import Access
from cumulet.node.aci import ContainerGroups
from cumulet.node.kubelet import ACCESS, Kubelet
from cumulet.node.pods import Pods
from cumulet.node.profile import Profile
from cumulet.node.registration import Registration
from cumulet.node.stats import Stats
from cumulet.node.streams import Streams
from cumulet.node.watched import Watched

log = logging.getLogger(__name__)

_WORKERS = 16


class Agent:
    """A node. `client` has the node's own certificate, and `config` has its name."""

    def __init__(
        self,
        client: Client,
        groups: ContainerGroups,
        config: Config,
        profile: Profile,
        watched: Watched,
        tasks: TaskSet,
    ) -> None:
        self._client = client
        self._groups = groups
        self._profile = profile
        self._watched = watched
        self._tasks = tasks
        self._is_own = config.kubeconfig is None
        self.pods = Pods(client, groups, config, profile, watched, tasks)
        self._registration = Registration(client, profile, self.pods.events.recorder, lambda: groups.disk_pressure)
        self._registered = False

    @contextlib.asynccontextmanager
    async def serving(
        self,
        room: Room,
        session: aiohttp.ClientSession,
        listeners: Sequence[socket.socket],
        certificate: tuple[Path, Path],
        other_clients: bytes = b"",
    ) -> AsyncIterator[None]:
        """Serve the kubelet's API. `other_clients` is the authority, in PEM, of another cluster's API server."""
        streams = Streams(self.pods, self._groups, session)
        kubelet = Kubelet(self.pods, self._groups, Stats(self.pods, self._groups, self._profile.name), streams)
        app = kubelet.app(self._unready)
        app[ACCESS] = Access(self._client, self._profile.name, KUBELET_CLIENT if self._is_own else None)
        clients: AuthorityName | bytes = "kubelet-client" if self._is_own else other_clients
        async with room.serving(app, listeners=listeners, certificate=certificate, clients=clients):
            yield

    async def is_gone(self) -> bool:
        """Whether the node left the pool, was drained and deleted. Raises `KubernetesError`, `aiohttp.ClientError`."""
        if not self._profile.leaves:
            return False
        try:
            await self._client.get(NODES, self._profile.name)
        except KubernetesError as error:
            if error.code != 404:
                raise
            return True
        return False

    async def register(self, stopping: Callable[[], bool]) -> None:
        """Create the node, as often as it takes, until the room stops."""
        backoff = Backoff(0.05, 5)
        while not self._registered and not stopping():
            try:
                if not await self.is_gone():
                    await self._registration.register()
                self._registered = True
            except (KubernetesError, aiohttp.ClientError, TimeoutError) as error:
                log.warning("registering the node %s: %s", self._profile.name, error)
                await backoff.wait()

    @property
    def informers(self) -> list[AnyInformer]:
        """The informers of this node alone."""
        return [self.pods.pods]

    def heartbeat(self) -> None:
        """Start what a registered node does while its informers are not complete yet."""
        self._tasks.start_essential(self._registration.run(), f"heartbeat of {self._profile.name}")
        self._tasks.start_essential(self.pods.events.recorder.run(), f"events of {self._profile.name}")

    def work(self) -> None:
        """Start the work on pods. The informers are complete."""
        self._tasks.start_essential(self.pods.watch(), f"groups of {self._profile.name}")
        for _ in range(_WORKERS):
            self._tasks.start_essential(self.pods.queue.work(self.pods.reconcile), f"pod of {self._profile.name}")

    def _unready(self) -> str | None:
        waiting = [
            informer.resource.plural
            for informer in (*self.informers, *self._watched.informers)
            if not informer.synced.is_set()
        ]
        if waiting:
            return f"waiting for {', '.join(waiting)}"
        return None if self._registered else "not registered yet"


def settings_of(config: Config, profile: Profile) -> Config:
    """Return the settings as one node has them: with its name and the subnet of its groups."""
    if profile.is_virtual:
        return config
    return msgspec.structs.replace(
        config, node_name=profile.name, node_subnet=config.subnet_of(config.cluster, "aks-subnet"), strict_aci=False
    )
