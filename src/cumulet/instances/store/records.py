"""The records of container groups and of what has happened to them."""

from __future__ import annotations

import msgspec

from cumulet.common import clock
from cumulet.instances.model.properties import GroupProperties

#: How many events of a container are kept.
_EVENTS = 50


class State(msgspec.Struct, rename="camel", omit_defaults=True):
    """One state of a container, as `instanceView` has it."""

    state: str
    detail_status: str = ""
    start_time: str | None = None
    finish_time: str | None = None
    exit_code: int | None = None

    @property
    def lived(self) -> float:
        """Seconds from the start to the end, where both are known."""
        if not self.start_time or not self.finish_time:
            return 0.0
        return (clock.parse(self.finish_time) - clock.parse(self.start_time)).total_seconds()


class Event(msgspec.Struct, rename="camel"):
    """Something that happened to a container, and how often."""

    name: str
    message: str
    type: str
    first_timestamp: str
    last_timestamp: str
    count: int = 1


class ContainerStatus(msgspec.Struct, rename="camel"):
    """What became of a container. `attempt` counts its starts and names its files; `ready` is the probe's word."""

    restart_count: int = 0
    current_state: State = msgspec.field(default_factory=lambda: State("Waiting"))
    previous_state: State | None = None
    events: list[Event] = []
    ready: bool = False
    image_id: str = ""
    attempt: int = 0
    #: Whether the newest attempt's files are at the container's number; an earlier version had them at its name.
    numbered: bool = False

    def add_event(self, name: str, message: str, *, warning: bool = False) -> None:
        """Add an event, or count one that came before; of many the last ones are kept."""
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


class GroupStatus(msgspec.Struct, rename="camel"):
    """What became of a group. `delete_by` is when its containers' grace is over, once it is being deleted.

    `ids` is the first id of the range that its user namespace has, 0 without one, as groups of earlier versions are.
    """

    state: str = "Pending"
    provisioning_state: str = "Pending"
    ip: str = ""
    ids: int = 0
    delete_by: str | None = None
    containers: dict[str, ContainerStatus] = {}
    events: list[Event] = []

    def add_event(self, name: str, message: str, *, warning: bool = False) -> None:
        """Add an event of the whole group, or count one that came before; of many the last ones are kept."""
        _add_event(self.events, name, message, warning)


class GroupRecord(msgspec.Struct):
    """A group; `uid` names it on this machine, `key` is its resource id in lower case.

    `flaw` says why a group that an earlier version took is not valid any more.
    """

    uid: str
    key: str
    id: str
    location: str
    tags: dict[str, str]
    properties: GroupProperties
    status: GroupStatus
    flaw: str | None = None
