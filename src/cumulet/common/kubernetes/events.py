"""Writing Events (core v1) about objects; the same event again raises its count, as client-go's recorder does.

Many that are alike are combined and bounded (`correlation`), but those of a component that says not to.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import OrderedDict
from typing import Literal

import aiohttp

from cumulet.common import clock
from cumulet.common.kubernetes.client import EVENTS, Client, KubernetesError, Object
from cumulet.common.kubernetes.correlation import Correlator

log = logging.getLogger(__name__)

_REMEMBERED = 4096
_MESSAGE_LIMIT = 1024

_Key = tuple[str, str, str, str]


class EventRecorder:
    """Writes events in the background, in order. `run` it in a task; `event` never waits and never fails."""

    def __init__(self, client: Client, component: str, host: str = "", *, correlated: bool = True) -> None:
        self._client = client
        self._correlator = Correlator() if correlated else None
        self._source = {"component": component} | ({"host": host} if host else {})
        self._component = component
        self._stamp = 0
        self._queue: asyncio.Queue[tuple[_Key, Object]] = asyncio.Queue()
        self._known: OrderedDict[_Key, Object] = OrderedDict()

    def event(self, obj: Object, type_: Literal["Normal", "Warning"], reason: str, message: str) -> None:
        """Record that `reason` happened to `obj`."""
        metadata = obj["metadata"]
        involved = {
            "apiVersion": obj.get("apiVersion", "v1"),
            "kind": obj["kind"],
            "name": metadata["name"],
            "uid": metadata.get("uid", ""),
            "resourceVersion": metadata.get("resourceVersion", ""),
        }
        if namespace := metadata.get("namespace"):
            involved["namespace"] = namespace
        self.event_about(involved, type_, reason, message)

    def event_about(self, involved: Object, type_: Literal["Normal", "Warning"], reason: str, message: str) -> None:
        """The same for an object reference, which may have a `fieldPath` such as `spec.containers{web}`."""
        moment = clock.rfc3339()
        # In the name, the time in nanoseconds: kubectl keeps the order of names among events of one second.
        self._stamp = max(self._stamp + 1, time.time_ns())
        message = message[:_MESSAGE_LIMIT]
        event: Object = {
            "metadata": {
                "name": f"{involved['name']}.{self._stamp:x}",
                "namespace": involved.get("namespace", "default"),
            },
            "involvedObject": involved,
            "reason": reason,
            "message": message,
            "type": type_,
            "source": self._source,
            "reportingComponent": self._component,
            "reportingInstance": self._source.get("host", ""),
            "firstTimestamp": moment,
            "lastTimestamp": moment,
            "count": 1,
        }
        combined = self._correlator is not None and self._correlator.combined(event)
        if self._correlator is not None and self._correlator.spare(event):
            return
        what = ("", "") if combined else (involved.get("fieldPath", ""), message)
        key = (involved.get("uid") or involved["name"], reason, *what)
        self._queue.put_nowait((key, event))

    async def run(self) -> None:
        """Write what is recorded until cancelled."""
        while True:
            key, event = await self._queue.get()
            try:
                await self._write(key, event)
            except (KubernetesError, aiohttp.ClientError, TimeoutError) as error:
                # An event is a courtesy: losing one must never hold up the work that it tells of.
                log.warning("event %s about %s not written: %s", event["reason"], event["involvedObject"], error)
            finally:
                self._queue.task_done()

    async def flush(self) -> None:
        """Wait until everything recorded so far is written."""
        await self._queue.join()

    async def _write(self, key: _Key, event: Object) -> None:
        known = self._known.get(key)
        if known is not None:
            count = known["count"] + 1
            patch = {"count": count, "lastTimestamp": event["lastTimestamp"], "message": event["message"]}
            try:
                self._known[key] = await self._client.patch(
                    EVENTS, known["metadata"]["name"], patch, known["metadata"]["namespace"]
                )
                self._known.move_to_end(key)
                return
            except KubernetesError as error:
                if error.code != 404:  # gone after an hour, or with its namespace: write it anew
                    raise
        self._known[key] = await self._client.create(EVENTS, event)
        self._known.move_to_end(key)
        while len(self._known) > _REMEMBERED:
            self._known.popitem(last=False)
