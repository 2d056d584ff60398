"""The back-off of pods that the provider refused: each refusal doubles the wait."""

from __future__ import annotations

import time

from cumulet.common.tasks import Backoff

#: Seconds after the first refusal, and at most.
_FIRST, _LONGEST = 1.0, 300.0


class Refusals:
    """The back-offs of pods, by uid. A change in the meantime, for example of a secret, does not shorten them."""

    def __init__(self) -> None:
        self._backoffs: dict[str, Backoff] = {}
        self._due: dict[str, float] = {}

    def refused(self, uid: str) -> float:
        """Record a refusal of a pod; return the seconds until its next attempt."""
        seconds = self._backoffs.setdefault(uid, Backoff(_FIRST, _LONGEST)).next()
        self._due[uid] = time.monotonic() + seconds
        return seconds

    def due_in(self, uid: str) -> float:
        """Return the seconds until the next attempt of a pod, 0 or less when it is due."""
        return self._due.get(uid, 0.0) - time.monotonic()

    def forget(self, uid: str) -> None:
        """Reset the back-off of a pod that runs or is gone."""
        self._backoffs.pop(uid, None)
        self._due.pop(uid, None)
