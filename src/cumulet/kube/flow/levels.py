"""Priority levels: a bound on concurrent requests, and fair turns among waiting ones."""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from contextvars import ContextVar

from cumulet.kube.apimachinery.status import ApiError

#: The seat of the current request, for handlers that go on without one.
SEAT: ContextVar[Seat] = ContextVar("seat")
_WAIT = 15.0


class Seat:
    """A place among the running requests; `release` takes effect once."""

    def __init__(self, level: Level | None) -> None:
        self._level = level

    def release(self) -> None:
        """Give the seat to the next request."""
        level, self._level = self._level, None
        if level is not None:
            level.leave()


class Level:
    """One priority level."""

    def __init__(self, name: str, seats: int, waiting: int) -> None:
        self.name = name
        self.seats = seats
        self.limit = waiting
        self._taken = 0
        self._waiting = 0
        self._flows: OrderedDict[str, deque[asyncio.Future[None]]] = OrderedDict()

    async def enter(self, flow: str) -> None:
        """Take a seat, in turn. Raises `ApiError` 429 where too many requests wait, or this one waits too long."""
        if self._taken < self.seats:
            self._taken += 1
            return
        if self._waiting >= self.limit:
            raise _too_many()
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._flows.setdefault(flow, deque()).append(turn)
        self._waiting += 1
        try:
            async with asyncio.timeout(_WAIT):
                await turn
        except BaseException as error:
            if turn.done() and not turn.cancelled():
                self.leave()  # it got the seat at that very moment
            else:
                self._forget(flow, turn)
            if isinstance(error, TimeoutError):
                raise _too_many() from None
            raise

    def leave(self) -> None:
        """Give the seat to the first request of the next flow, or return it."""
        while self._flows:
            flow, turns = self._flows.popitem(last=False)
            turn = turns.popleft()
            if turns:
                self._flows[flow] = turns
            self._waiting -= 1
            if not turn.done():
                turn.set_result(None)
                return
        self._taken -= 1

    def _forget(self, flow: str, turn: asyncio.Future[None]) -> None:
        turns = self._flows.get(flow)
        if turns is not None and turn in turns:
            turns.remove(turn)
            self._waiting -= 1
            if not turns:
                del self._flows[flow]


EXEMPT = Seat(None)


def _too_many() -> ApiError:
    why = "Too many requests, please try again later."
    return ApiError(429, "TooManyRequests", why, {"retryAfterSeconds": 1})
