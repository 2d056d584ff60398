"""Observability of the data plane: an access log line for each request, counters, times and readiness.

Counters are plain numbers, which only a scrape turns into Prometheus metrics. Counting a request takes a microsecond.
"""

from __future__ import annotations

import bisect
import shutil
import sqlite3
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from aiohttp import web
from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from cumulet.common.database import Database
from cumulet.common.logs import AccessLine, AccessLog
from cumulet.registry.access import request_context
from cumulet.registry.distribution.file_responses import FileResponse
from cumulet.registry.oci.errors import Handler, answer_errors

#: Upper bounds in seconds.
_BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
_LEAST_FREE = 64 * 1024 * 1024
#: The values of the label `method`: a caller must not be able to create new ones.
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"})


def unready(database: Database, folder: Path) -> str | None:
    """The reason why pushes or pulls would fail now, or `None` when the room is ready."""
    try:
        database.read("SELECT 1")
        free = shutil.disk_usage(folder).free
    except (sqlite3.Error, OSError) as error:
        return f"the catalog or the content store cannot be read: {error}"
    if free < _LEAST_FREE:
        return f"only {free} bytes are left on the disk of the content store"
    return None


class Observer(Collector):
    """Counts, times and logs requests, and turns the errors of their handlers into responses."""

    def __init__(self, metrics: CollectorRegistry, access: AccessLog) -> None:
        self._access = access
        self._requests: Counter[tuple[str, int]] = Counter()
        self._bytes: Counter[str] = Counter()
        self._counts: dict[str, list[int]] = {}
        self._seconds: Counter[str] = Counter()
        metrics.register(self)

    def observed(self, handler: Handler) -> Handler:
        """The handler, wrapped so that each of its requests is recorded."""

        async def observed(request: web.Request) -> web.StreamResponse:
            at, began = time.time(), time.perf_counter()
            response = await answer_errors(request, handler)

            def sent(complete: bool) -> None:
                took = time.perf_counter() - began
                size = 0 if request.method == "HEAD" else response.content_length or 0
                context = request_context.of(request)
                self.record(request, response.status, took, size, context.principal, context.scope, at, complete)

            if isinstance(response, FileResponse):
                response.sent = sent
            else:
                sent(True)
            return response

        return observed

    def record(
        self,
        request: web.BaseRequest,
        status: int,
        took: float,
        size: int,
        principal: str,
        scope: str,
        at: float,
        complete: bool,
    ) -> None:
        """Count and log a request.

        `at` is when it came, in seconds since 1970, `took` the seconds until the end of the response, and `size` the bytes
        of the body. `complete` is whether all of the body was sent.
        """
        method = request.method if request.method in _METHODS else "other"
        self._requests[method, status] += 1
        self._bytes[method] += size
        self._seconds[method] += took  # type: ignore[assignment]
        counts = self._counts.get(method)
        if counts is None:
            counts = self._counts[method] = [0] * (len(_BUCKETS) + 1)
        counts[bisect.bisect_left(_BUCKETS, took)] += 1
        headers = request.headers
        self._access.add(
            AccessLine(
                at,
                f"{request.method} {request.raw_path.partition('?')[0]}",
                status=status,
                seconds=took,
                bytes=size,
                complete=complete,
                principal=principal,
                scope=scope,
                host=headers.get("Host", ""),
                client=request.remote or "",
                user_agent=headers.get("User-Agent", ""),
            )
        )

    def collect(self) -> Iterator[Metric]:
        """The metrics, for a scrape."""
        requests = CounterMetricFamily("registry_requests", "Requests answered", labels=["method", "status"])
        for (method, status), number in self._requests.items():
            requests.add_metric([method, str(status)], number)
        sent = CounterMetricFamily("registry_sent_bytes", "Bytes of the answers' bodies", labels=["method"])
        times = HistogramMetricFamily("registry_request_seconds", "Time to answer", labels=["method"])
        for method, counts in self._counts.items():
            sent.add_metric([method], self._bytes[method])
            buckets: list[tuple[str, float]] = []
            total = 0
            for bound, number in zip((*map(str, _BUCKETS), "+Inf"), counts, strict=True):
                total += number
                buckets.append((bound, total))
            times.add_metric([method], buckets, self._seconds[method])
        yield from (requests, sent, times)
