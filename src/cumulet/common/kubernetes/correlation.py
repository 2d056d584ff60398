"""Keeps a component from flooding the cluster with events (client-go, `tools/record.EventCorrelator`).

Of an object, many events of one reason with different messages become one that is counted, and beyond a burst there is
no more than one in five minutes.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from typing import Any, Generic, TypeVar

Object = dict[str, Any]

#: Different messages of one reason within `_WITHIN` seconds before they are combined.
_SIMILAR = 10
_WITHIN = 600.0
_COMBINED = "(combined from similar events): "
#: Events about one object: so many at once, then one in so many seconds.
_BURST = 25
_REFILL = 300.0
_REMEMBERED = 4096

_Value = TypeVar("_Value")


class Correlator:
    """What one component says."""

    def __init__(self) -> None:
        self._similar: _Recent[tuple[set[str], float]] = _Recent()
        self._tokens: _Recent[tuple[float, float]] = _Recent()

    def combined(self, event: Object) -> bool:
        """Whether an event is one of many that are alike; its message then says so."""
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

    def spare(self, event: Object) -> bool:
        """Whether another event about the object would be too many."""
        now = time.monotonic()
        key = _identity(event["involvedObject"])
        tokens, last = self._tokens.get(key) or (float(_BURST), now)
        tokens = min(tokens + (now - last) / _REFILL, _BURST)
        enough = tokens >= 1
        self._tokens.put(key, (tokens - 1 if enough else tokens, now))
        return not enough


class _Recent(Generic[_Value]):
    """Those that were put last."""

    def __init__(self) -> None:
        self._values: OrderedDict[tuple[str, ...], _Value] = OrderedDict()

    def get(self, key: tuple[str, ...]) -> _Value | None:
        return self._values.get(key)

    def put(self, key: tuple[str, ...], value: _Value) -> None:
        self._values[key] = value
        self._values.move_to_end(key)
        if len(self._values) > _REMEMBERED:
            self._values.popitem(last=False)


def _identity(involved: Object) -> tuple[str, ...]:
    return tuple(involved.get(field, "") for field in ("apiVersion", "kind", "namespace", "name", "uid"))
