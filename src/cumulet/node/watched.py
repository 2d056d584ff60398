"""The objects that pods of all nodes of the room refer to: one informer a kind, which the nodes share."""

from __future__ import annotations

from cumulet.common.kubernetes import Client, Informer
from cumulet.common.kubernetes.client import (
    CONFIGMAPS,
    PERSISTENTVOLUMECLAIMS,
    PERSISTENTVOLUMES,
    SECRETS,
    SERVICEACCOUNTS,
    SERVICES,
    STORAGECLASSES,
)
from cumulet.common.kubernetes.informer import AnyInformer


class Watched:
    """The informers. `client` may read what all nodes need; `disks` may read volumes, `None` without nodes that have any."""

    def __init__(self, client: Client, disks: Client | None = None) -> None:
        self.client = client
        self.secrets = Informer(client, SECRETS)
        self.config_maps = Informer(client, CONFIGMAPS)
        self.services = Informer(client, SERVICES)
        self.accounts = Informer(client, SERVICEACCOUNTS, metadata_only=True)
        self.claims = Informer(disks or client, PERSISTENTVOLUMECLAIMS)
        self.volumes = Informer(disks or client, PERSISTENTVOLUMES)
        self.classes = Informer(disks or client, STORAGECLASSES)
        self._has_disks = disks is not None

    @property
    def informers(self) -> list[AnyInformer]:
        """The informers that are to run."""
        found: list[AnyInformer] = [self.secrets, self.config_maps, self.services, self.accounts]
        return [*found, self.claims, self.volumes, self.classes] if self._has_disks else found
