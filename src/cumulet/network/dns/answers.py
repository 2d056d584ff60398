"""The bytes of answers, which are given again as long as they are true."""

from __future__ import annotations

import time
from dataclasses import dataclass

from cumulet.network.dns.clients import Scope

#: Bytes that are kept for each kind of client, with what Python needs for an entry; and bytes of one answer.
_BYTES, _ENTRY, _LONGEST = 16 * 1024 * 1024, 400, 4096

Key = tuple[Scope, bytes]


@dataclass(slots=True)
class _Kept:
    """Answers to one question, each with its records in another order, of which there are `several`."""

    until: float
    several: int
    orders: list[bytes]
    turn: int = 0


class Answers:
    """The answers by kind of client and question, which is compared as it was sent, without its id."""

    def __init__(self) -> None:
        self._kept: dict[Scope, dict[bytes, _Kept]] = {scope: {} for scope in Scope}
        self._bytes = dict.fromkeys(Scope, 0)

    def get(self, scope: Scope, question: bytes) -> bytes | None:
        """Return an answer without the id, the next order of its records each time; `None` if it has to be made."""
        kept = self._kept[scope].get(question)
        if kept is None or len(kept.orders) < kept.several or kept.until < time.monotonic():
            return None
        kept.turn += 1
        return kept.orders[kept.turn % kept.several]

    def order(self, scope: Scope, question: bytes) -> int:
        """Return which order of the records the answer that is made next should have."""
        kept = self._kept[scope].get(question)
        return 0 if kept is None or kept.until < time.monotonic() else len(kept.orders)

    def put(self, scope: Scope, question: bytes, answer: bytes, lifetime: float, several: int) -> None:
        """Keep an answer, without the id, for some seconds; it is complete once there are `several` orders of it."""
        if len(answer) > _LONGEST:
            return
        answers = self._kept[scope]
        kept = answers.get(question)
        if kept is None or kept.until < time.monotonic() or len(kept.orders) >= kept.several:
            self._forget(scope, question)
            kept = answers[question] = _Kept(time.monotonic() + lifetime, several, [])
            self._bytes[scope] += len(question) + _ENTRY
        kept.orders.append(answer)
        self._bytes[scope] += len(answer)
        while self._bytes[scope] > _BYTES:
            self._forget(scope, next(iter(answers)))  # the oldest

    def clear(self) -> None:
        """Forget all answers."""
        for scope, answers in self._kept.items():
            answers.clear()
            self._bytes[scope] = 0

    def _forget(self, scope: Scope, question: bytes) -> None:
        kept = self._kept[scope].pop(question, None)
        if kept is not None:
            self._bytes[scope] -= len(question) + _ENTRY + sum(map(len, kept.orders))
