"""Limits the events of a component (client-go, `tools/record.EventCorrelator`).

Many events about one object with the same reason and different messages become one event with a count. After a burst, an
object gets at most one event in five minutes.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from typing import Generic, TypeVar

from cumulet.common.kubernetes.objects import Event, ObjectReference

#: The number of different messages of one reason within `_WITHIN` seconds after which they are combined.
_SIMILAR = 10
_WITHIN = 600.0
_COMBINED = "(combined from similar events): "
#: Events about one object: the burst, and the seconds after which one more is allowed.
_BURST = 25
_REFILL = 300.0
_REMEMBERED = 4096

_Value = TypeVar("_Value")


class Correlator:
    """The recent events of one component."""

    def __init__(self) -> None:
        self._similar: _Recent[tuple[set[str], float]] = _Recent()
        self._tokens: _Recent[tuple[float, float]] = _Recent()

    def combined(self, event: Event) -> bool:
        """Whether an event is one of many similar ones. If so, marks its message as combined."""
        now = time.monotonic()
        involved = event["involvedObject"]
        key = (*_identity(involved), event["type"], event["reason"])
        messages, last = self._similar.get(key) or (set(), now)
        if now - last > _WITHIN:
            messages = set()
        messages.add(event["message"])
        many = len(messages) >= _SIMILAR
        if many:
            messages.pop()
            event["message"] = _COMBINED + event["message"]
        self._similar.put(key, (messages, now))
        return many

    def exceeds(self, event: Event) -> bool:
        """Whether the event exceeds the rate that its object is allowed."""
        now = time.monotonic()
        key = _identity(event["involvedObject"])
        tokens, last = self._tokens.get(key) or (float(_BURST), now)
        tokens = min(tokens + (now - last) / _REFILL, _BURST)
        enough = tokens >= 1
        self._tokens.put(key, (tokens - 1 if enough else tokens, now))
        return not enough


class _Recent(Generic[_Value]):
    """The values of the `_REMEMBERED` keys that were set last."""

    def __init__(self) -> None:
        self._values: OrderedDict[tuple[str, ...], _Value] = OrderedDict()

    def get(self, key: tuple[str, ...]) -> _Value | None:
        return self._values.get(key)

    def put(self, key: tuple[str, ...], value: _Value) -> None:
        self._values[key] = value
        self._values.move_to_end(key)
        if len(self._values) > _REMEMBERED:
            self._values.popitem(last=False)


def _identity(involved: ObjectReference) -> tuple[str, ...]:
    return (
        involved.get("apiVersion", ""),
        involved.get("kind", ""),
        involved.get("namespace", ""),
        involved.get("name", ""),
        involved.get("uid", ""),
    )
