"""How fast a size may change: the bounds, policies and stabilisation windows of an autoscaler's `behavior`."""

from __future__ import annotations

import math
import time
from collections import deque
from typing import NamedTuple

from cumulet.controllers.controller import Object

_UP: Object = {
    "policies": [
        {"type": "Pods", "value": 4, "periodSeconds": 15},
        {"type": "Percent", "value": 100, "periodSeconds": 15},
    ]
}
_DOWN: Object = {"policies": [{"type": "Percent", "value": 100, "periodSeconds": 15}]}
_WINDOWS = {"scaleUp": 0, "scaleDown": 300}
_KEPT = 3600.0


class Limited(NamedTuple):
    """The size that is allowed, and what stood in the way: a condition's reason and message."""

    replicas: int
    limited: bool
    reason: str
    message: str


class Pace:
    """What one autoscaler wanted and did of late."""

    def __init__(self) -> None:
        self._wanted: deque[tuple[float, int]] = deque()
        self._done: deque[tuple[float, int]] = deque()

    def stabilise(self, autoscaler: Object, current: int, wanted: int) -> tuple[int, str]:
        """The size after the windows: the least of late when growing, the greatest when shrinking; and which held."""
        now = time.monotonic()
        windows = {way: _rules(autoscaler, way).get("stabilizationWindowSeconds", _WINDOWS[way]) for way in _WINDOWS}
        self._wanted.append((now, wanted))
        while self._wanted and self._wanted[0][0] < now - _KEPT:
            self._wanted.popleft()
        up = min(value for moment, value in self._wanted if moment >= now - windows["scaleUp"])
        down = max(value for moment, value in self._wanted if moment >= now - windows["scaleDown"])
        found = min(max(current, up), down)
        if found == wanted:
            return found, ""
        return found, "ScaleDownStabilized" if found > wanted else "ScaleUpStabilized"

    def limit(self, autoscaler: Object, current: int, wanted: int) -> Limited:
        """The size within what the policies allow now, and between the least and the most."""
        least, most = autoscaler["spec"].get("minReplicas", 1), autoscaler["spec"]["maxReplicas"]
        if wanted > current:
            bound = self._bound(autoscaler, "scaleUp", current)
            if wanted > min(bound, most):
                if bound < most:
                    return Limited(
                        bound,
                        True,
                        "ScaleUpLimit",
                        "the desired replica count is increasing faster than the maximum scale rate",
                    )
                return Limited(
                    most, True, "TooManyReplicas", "the desired replica count is more than the maximum replica count"
                )
        elif wanted < current:
            bound = self._bound(autoscaler, "scaleDown", current)
            if wanted < max(bound, least):
                if bound > least:
                    return Limited(
                        bound,
                        True,
                        "ScaleDownLimit",
                        "the desired replica count is decreasing faster than the maximum scale rate",
                    )
                return Limited(
                    least, True, "TooFewReplicas", "the desired replica count is less than the minimum replica count"
                )
        if wanted > most:
            return Limited(
                most, True, "TooManyReplicas", "the desired replica count is more than the maximum replica count"
            )
        if wanted < least:
            return Limited(
                least, True, "TooFewReplicas", "the desired replica count is less than the minimum replica count"
            )
        return Limited(wanted, False, "DesiredWithinRange", "the desired count is within the acceptable range")

    def did(self, change: int) -> None:
        """The size was changed by so much."""
        now = time.monotonic()
        self._done.append((now, change))
        while self._done and self._done[0][0] < now - _KEPT:
            self._done.popleft()

    def _bound(self, autoscaler: Object, way: str, current: int) -> int:
        rules = _rules(autoscaler, way)
        grows = way == "scaleUp"
        select = rules.get("selectPolicy", "Max")
        if select == "Disabled":
            return current
        bounds: list[int] = []
        for policy in rules.get("policies") or (_UP if grows else _DOWN)["policies"]:
            since = time.monotonic() - policy["periodSeconds"]
            done = sum(change for moment, change in self._done if moment >= since and (change > 0) is grows)
            began = current - done
            if policy["type"] == "Pods":
                bounds.append(began + policy["value"] if grows else began - policy["value"])
            elif grows:
                bounds.append(math.ceil(began * (1 + policy["value"] / 100)))
            else:
                bounds.append(int(began * (1 - policy["value"] / 100)))
        # `Max` is the greatest change, whichever way it goes.
        return max(bounds) if (select == "Max") is grows else min(bounds)


def tolerance(autoscaler: Object, way: str, default: float) -> float:
    """Below which share a change that way is none."""
    value = _rules(autoscaler, way).get("tolerance")
    if value is None:
        return default
    text = str(value)
    return float(text[:-1]) / 1000 if text.endswith("m") else float(text)


def _rules(autoscaler: Object, way: str) -> Object:
    found: Object = (autoscaler["spec"].get("behavior") or {}).get(way) or {}
    return found
