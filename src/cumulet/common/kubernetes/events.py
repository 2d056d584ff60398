"""Recording of Events (core v1) about objects. A repeated event increases its count, as in client-go's recorder.

Similar events are combined and limited (`correlation`), unless a component disables that.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import OrderedDict
from typing import Literal

import aiohttp

from cumulet.common import clock
from cumulet.common.kubernetes.client import EVENTS, Client, KubernetesError
from cumulet.common.kubernetes.correlation import Correlator
from cumulet.common.kubernetes.objects import Event, EventSource, ObjectReference, PartialObjectMetadata

log = logging.getLogger(__name__)

_REMEMBERED = 4096
_MESSAGE_LIMIT = 1024

_Key = tuple[str, str, str, str]


class EventRecorder:
    """Writes events in the background, in order. `run` it in a task; `event` never blocks and never fails."""

    def __init__(self, client: Client, component: str, host: str = "", *, correlated: bool = True) -> None:
        self._client = client
        self._correlator = Correlator() if correlated else None
        self._source: EventSource = {"component": component}
        if host:
            self._source["host"] = host
        self._component = component
        self._stamp = 0
        self._queue: asyncio.Queue[tuple[_Key, Event]] = asyncio.Queue()
        self._known: OrderedDict[_Key, Event] = OrderedDict()

    def event(
        self, obj: PartialObjectMetadata, type_: Literal["Normal", "Warning"], reason: str, message: str
    ) -> None:
        """Record an event about `obj`."""
        metadata = obj["metadata"]
        involved: ObjectReference = {
            "apiVersion": obj.get("apiVersion", "v1"),
            "kind": obj["kind"],
            "name": metadata["name"],
            "uid": metadata.get("uid", ""),
            "resourceVersion": metadata.get("resourceVersion", ""),
        }
        if namespace := metadata.get("namespace"):
            involved["namespace"] = namespace
        self.event_about(involved, type_, reason, message)

    def event_about(
        self, involved: ObjectReference, type_: Literal["Normal", "Warning"], reason: str, message: str
    ) -> None:
        """Record an event about a reference, which can have a `fieldPath` such as `spec.containers{web}`."""
        moment = clock.rfc3339()
        # The name contains the time in nanoseconds, because kubectl sorts events of one second by their names.
        self._stamp = max(self._stamp + 1, time.time_ns())
        message = message[:_MESSAGE_LIMIT]
        event: Event = {
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
        if self._correlator is not None and self._correlator.exceeds(event):
            return
        detail = ("", "") if combined else (involved.get("fieldPath", ""), message)
        key = (involved.get("uid") or involved["name"], reason, *detail)
        self._queue.put_nowait((key, event))

    async def run(self) -> None:
        """Write the recorded events until cancelled."""
        while True:
            key, event = await self._queue.get()
            try:
                await self._write(key, event)
            except (KubernetesError, aiohttp.ClientError, TimeoutError) as error:
                # Events are best effort: a lost event must never delay the work that it describes.
                log.warning("event %s about %s not written: %s", event["reason"], event["involvedObject"], error)
            finally:
                self._queue.task_done()

    async def flush(self) -> None:
        """Wait until all events recorded so far are written."""
        await self._queue.join()

    async def _write(self, key: _Key, event: Event) -> None:
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
                if error.code != 404:  # expired after an hour, or deleted with its namespace: create it again
                    raise
        self._known[key] = await self._client.create(EVENTS, event)
        self._known.move_to_end(key)
        while len(self._known) > _REMEMBERED:
            self._known.popitem(last=False)
