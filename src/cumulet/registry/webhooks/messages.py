"""The JSON documents of webhooks (ACR's documentation, "Webhook schema reference"; REST reference 2023-07-01, `Event`)."""

from __future__ import annotations

import msgspec
from msgspec import UNSET, UnsetType


class EventTarget(msgspec.Struct, rename="camel", kw_only=True):
    """The object of an event, empty in a ping. `size` and `length` are the bytes of a pushed manifest."""

    media_type: str | UnsetType = UNSET
    size: int | UnsetType = UNSET
    digest: str | UnsetType = UNSET
    length: int | UnsetType = UNSET
    repository: str | UnsetType = UNSET
    tag: str | UnsetType = UNSET


class EventRequest(msgspec.Struct):
    """The request that caused an event."""

    id: str
    host: str
    method: str
    useragent: str


class Actor(msgspec.Struct):
    """The principal that caused an event."""

    name: str


class EventContent(msgspec.Struct):
    """The body of a delivery. `timestamp` is in RFC 3339."""

    id: str
    timestamp: str
    action: str
    target: EventTarget
    request: EventRequest
    actor: Actor | UnsetType = UNSET


class RequestMessage(msgspec.Struct):
    """A delivery as it was sent. `content` is the JSON of an `EventContent`."""

    content: msgspec.Raw
    headers: dict[str, str]
    method: str = "POST"
    version: str = "1.1"


class ResponseMessage(msgspec.Struct, rename="camel"):
    """The response of the receiver. The status code `0` stands for no response, with the reason."""

    content: str
    headers: dict[str, str]
    reason_phrase: str | None
    status_code: str
    version: str = "1.1"

    @property
    def is_success(self) -> bool:
        """Whether the receiver accepted the event."""
        return self.status_code.startswith("2")


class Event(
    msgspec.Struct, frozen=True, rename={"request": "eventRequestMessage", "response": "eventResponseMessage"}
):
    """An event with its last delivery and response, in the form of `listEvents`."""

    id: str
    request: RequestMessage | None
    response: ResponseMessage | None
