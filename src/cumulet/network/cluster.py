"""What the parts of the network share: the watched objects of the cluster, the settings, events and tasks."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from typing import NamedTuple

from cumulet.common.config import Config
from cumulet.common.kubernetes import Client, EventRecorder, Informer
from cumulet.common.kubernetes.client import ENDPOINTSLICES, NAMESPACES, NETWORKPOLICIES, PODS, SERVICES
from cumulet.common.kubernetes.informer import AnyInformer
from cumulet.common.kubernetes.objects import EndpointSlice, Namespace, NetworkPolicy, Pod, Service
from cumulet.common.tasks import TaskSet


class Cluster(NamedTuple):
    """The watched objects. A part adds its handlers and indexes when it starts, and gets every object that exists."""

    config: Config
    client: Client
    #: Background work of the parts, cancelled when the room stops.
    tasks: TaskSet
    events: EventRecorder
    services: Informer[Service]
    slices: Informer[EndpointSlice]
    pods: Informer[Pod]
    namespaces: Informer[Namespace]
    policies: Informer[NetworkPolicy]
    #: The name server's sockets in the router, for UDP and for TCP, if somebody holds them while the room restarts.
    doors: Sequence[socket.socket] = ()

    @classmethod
    def watched_by(
        cls, client: Client, config: Config, tasks: TaskSet, doors: Sequence[socket.socket] = ()
    ) -> Cluster:
        """Return the cluster of a client; nothing is watched until the informers run."""
        return cls(
            config,
            client,
            tasks,
            EventRecorder(client, "cumulet-network"),
            Informer(client, SERVICES),
            Informer(client, ENDPOINTSLICES),
            Informer(client, PODS),
            Informer(client, NAMESPACES),
            Informer(client, NETWORKPOLICIES),
            doors,
        )

    @property
    def informers(self) -> list[AnyInformer]:
        """All informers, to run them."""
        return [self.services, self.slices, self.pods, self.namespaces, self.policies]
