"""When a pod that the provider refused may be tried again: each refusal of it doubles the wait."""

from __future__ import annotations

import time

from cumulet.common.tasks import Backoff

#: Seconds after the first refusal, and at most.
_FIRST, _LONGEST = 1.0, 300.0


class Refusals:
    """The back-offs of pods, by uid. What changes meanwhile, such as a secret, does not shorten them."""

    def __init__(self) -> None:
        self._backoffs: dict[str, Backoff] = {}
        self._due: dict[str, float] = {}

    def refused(self, uid: str) -> float:
        """A pod was refused: the seconds after which it is due again."""
        seconds = self._backoffs.setdefault(uid, Backoff(_FIRST, _LONGEST)).next()
        self._due[uid] = time.monotonic() + seconds
        return seconds

    def due_in(self, uid: str) -> float:
        """Seconds until a pod may be tried, 0 or less where it may be now."""
        return self._due.get(uid, 0.0) - time.monotonic()

    def forget(self, uid: str) -> None:
        """The pod runs, or is gone."""
        self._backoffs.pop(uid, None)
        self._due.pop(uid, None)
