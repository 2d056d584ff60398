"""The records of container groups and of what has happened to them."""

from __future__ import annotations

import signal
from typing import Literal

import msgspec

from cumulet.common import clock
from cumulet.instances.model.envelope import Envelope, GroupIdentity
from cumulet.instances.model.pod import ContainerUser, ResourceRequirements
from cumulet.instances.model.properties import GroupProperties

#: The number of events that are kept, of a container and of a group.
_EVENTS = 50


class State(msgspec.Struct, rename="camel", omit_defaults=True):
    """One state of a container, as in `instanceView`. `message` is an extension."""

    state: str
    detail_status: str = ""
    start_time: str | None = None
    finish_time: str | None = None
    exit_code: int | None = None
    message: str = ""


#: How far the newest attempt is: its number is taken, its start was requested, it has ended, it has ended and is run again
#: because its sandbox is gone. Earlier versions recorded none.
Stage = Literal["", "making", "started", "ended", "again"]


class Event(msgspec.Struct, rename="camel"):
    """An event, and the number of times it happened."""

    name: str
    message: str
    type: str
    first_timestamp: str
    last_timestamp: str
    count: int = 1


class ContainerStatus(msgspec.Struct, rename="camel"):
    """The status of a container.

    `attempt` counts its starts. `ready` is the result of the readiness probe, `started` that of the startup probe.
    """

    restart_count: int = 0
    current_state: State = msgspec.field(default_factory=lambda: State("Waiting"))
    previous_state: State | None = None
    events: list[Event] = []
    ready: bool = False
    image_id: str = ""
    attempt: int = 0
    #: The exact resources that the newest attempt has, and why it does not have those of the group.
    resources: ResourceRequirements | None = None
    resize_error: str = ""
    user: ContainerUser | None = None
    #: Whether the folder of the newest attempt is named by the container's number; earlier versions used its name.
    numbered: bool = False
    started: bool = False
    stage: Stage = ""
    #: The signal that ends the newest attempt.
    stop_signal: int = signal.SIGTERM.value
    #: Seconds of the last back-off, and when it was left; 0 without one.
    back_off: int = 0
    back_off_left: str | None = None

    @property
    def last_end(self) -> State | None:
        """The end of the newest attempt that has ended, or `None`."""
        if self.current_state.state == "Terminated":
            return self.current_state
        return self.previous_state

    def add_event(self, name: str, message: str, *, warning: bool = False) -> None:
        """Add an event, or count a repeated one; the newest events are kept."""
        _add_event(self.events, name, message, warning)


def _add_event(events: list[Event], name: str, message: str, warning: bool) -> None:
    now = clock.rfc3339_micro()
    for event in events:
        if (event.name, event.message) == (name, message):
            event.count += 1
            event.last_timestamp = now
            return
    events.append(Event(name, message, "Warning" if warning else "Normal", now, now))
    del events[:-_EVENTS]


class Action(msgspec.Struct, rename="camel"):
    """What is being done to a group. `stop_by` is the end of its containers' grace period.

    `operation` is the id of the operation that reports it, and `is_cleared` whether the containers of before are gone.
    """

    kind: Literal["create", "update", "redeploy", "start", "restart", "stop"]
    operation: str
    began: str
    stop_by: str
    is_cleared: bool = False


class GroupStatus(msgspec.Struct, rename="camel"):
    """The status of a group. `delete_by` is the end of its containers' grace period while it is being deleted.

    `action` is what is being done to it besides that.
    `ids` is the first id of its user namespace, 0 without one, as in groups of earlier versions. `reason` and `message` say
    why the group ended, unless its containers did by themselves.
    """

    state: str = "Pending"
    provisioning_state: str = "Pending"
    ip: str = ""
    reason: str = ""
    message: str = ""
    #: When the group was accepted on this machine.
    began: str | None = None
    ids: int = 0
    delete_by: str | None = None
    action: Action | None = None
    containers: dict[str, ContainerStatus] = {}
    events: list[Event] = []

    @property
    def is_over(self) -> bool:
        """Whether the group has ended: it has no address and no bill any more."""
        return self.state in ("Succeeded", "Failed", "Stopped")

    def add_event(self, name: str, message: str, *, warning: bool = False) -> None:
        """Add an event of the whole group, or count a repeated one; the newest events are kept."""
        _add_event(self.events, name, message, warning)


class GroupRecord(msgspec.Struct):
    """A group. `uid` identifies it on this machine, `key` is its resource id in lower case.

    `next` are the properties that an update will set when the containers of before are gone.
    `flaw` is the reason why a group of an earlier version is not valid any more.
    """

    uid: str
    key: str
    id: str
    location: str
    tags: dict[str, str]
    properties: GroupProperties
    status: GroupStatus
    flaw: str | None = None
    envelope: Envelope = msgspec.field(default_factory=Envelope)
    next: GroupProperties | None = None

    @property
    def given_identity(self) -> GroupIdentity | None:
        """The identities that the containers may use: none of those that are the platform's alone (`identityAcls`)."""
        identity, acls = self.envelope.identity, self.properties.identity_acls
        if identity is None or acls is None:
            return identity
        assigned = {
            name: item for name, item in identity.user_assigned_identities.items() if acls.gives_containers(name)
        }
        own = identity.is_system_assigned and acls.gives_containers("system")
        if not own and not assigned:
            return None
        kind = ", ".join(name for name, given in (("SystemAssigned", own), ("UserAssigned", bool(assigned))) if given)
        return msgspec.structs.replace(
            identity,
            type=kind,
            client_id=identity.client_id if own else None,
            principal_id=identity.principal_id if own else None,
            user_assigned_identities=assigned,
        )

    @property
    def wanted(self) -> GroupProperties:
        """The properties of the last update, applied or not."""
        return self.next if self.next is not None else self.properties
