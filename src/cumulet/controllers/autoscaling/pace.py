"""Limits the rate of scaling: the bounds, policies and stabilization windows in `behavior` of an autoscaler."""

from __future__ import annotations

import math
import time
from collections import deque
from typing import Literal, NamedTuple

from cumulet.common.kubernetes.objects import HorizontalPodAutoscaler, HPAScalingPolicy, HPAScalingRules

Way = Literal["scaleUp", "scaleDown"]

_UP: list[HPAScalingPolicy] = [
    {"type": "Pods", "value": 4, "periodSeconds": 15},
    {"type": "Percent", "value": 100, "periodSeconds": 15},
]
_DOWN: list[HPAScalingPolicy] = [{"type": "Percent", "value": 100, "periodSeconds": 15}]
#: Default stabilization windows in seconds.
_WINDOWS: dict[Way, int] = {"scaleUp": 0, "scaleDown": 300}
_KEPT = 3600.0


class Limited(NamedTuple):
    """The allowed size, and the reason and message of the condition ScalingLimited."""

    replicas: int
    limited: bool
    reason: str
    message: str


class Pace:
    """The recent proposals and changes of one autoscaler."""

    def __init__(self) -> None:
        self._proposed: deque[tuple[float, int]] = deque()
        self._changes: deque[tuple[float, int]] = deque()

    def stabilise(self, autoscaler: HorizontalPodAutoscaler, current: int, proposed: int) -> tuple[int, str]:
        """The size after the stabilization windows, and the reason of the condition if a window changed it.

        Scaling up uses the smallest recent proposal, scaling down the largest.
        """
        now = time.monotonic()
        windows = {way: _rules(autoscaler, way).get("stabilizationWindowSeconds", _WINDOWS[way]) for way in _WINDOWS}
        self._proposed.append((now, proposed))
        while self._proposed and self._proposed[0][0] < now - _KEPT:
            self._proposed.popleft()
        up = min(value for moment, value in self._proposed if moment >= now - windows["scaleUp"])
        down = max(value for moment, value in self._proposed if moment >= now - windows["scaleDown"])
        size = min(max(current, up), down)
        if size == proposed:
            return size, ""
        return size, "ScaleDownStabilized" if size > proposed else "ScaleUpStabilized"

    def limit(self, autoscaler: HorizontalPodAutoscaler, current: int, proposed: int) -> Limited:
        """The proposed size, limited by the policies and by `minReplicas` and `maxReplicas`."""
        least, most = autoscaler["spec"].get("minReplicas", 1), autoscaler["spec"]["maxReplicas"]
        if proposed > current:
            bound = self._bound(autoscaler, "scaleUp", current)
            if proposed > min(bound, most):
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
        elif proposed < current:
            bound = self._bound(autoscaler, "scaleDown", current)
            if proposed < max(bound, least):
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
        if proposed > most:
            return Limited(
                most, True, "TooManyReplicas", "the desired replica count is more than the maximum replica count"
            )
        if proposed < least:
            return Limited(
                least, True, "TooFewReplicas", "the desired replica count is less than the minimum replica count"
            )
        return Limited(proposed, False, "DesiredWithinRange", "the desired count is within the acceptable range")

    def record(self, change: int) -> None:
        """Record a change of the size."""
        now = time.monotonic()
        self._changes.append((now, change))
        while self._changes and self._changes[0][0] < now - _KEPT:
            self._changes.popleft()

    def _bound(self, autoscaler: HorizontalPodAutoscaler, way: Way, current: int) -> int:
        rules = _rules(autoscaler, way)
        grows = way == "scaleUp"
        select = rules.get("selectPolicy", "Max")
        if select == "Disabled":
            return current
        bounds: list[int] = []
        for policy in rules.get("policies") or (_UP if grows else _DOWN):
            since = time.monotonic() - policy["periodSeconds"]
            done = sum(change for moment, change in self._changes if moment >= since and (change > 0) is grows)
            began = current - done
            if policy["type"] == "Pods":
                bounds.append(began + policy["value"] if grows else began - policy["value"])
            elif grows:
                bounds.append(math.ceil(began * (1 + policy["value"] / 100)))
            else:
                bounds.append(int(began * (1 - policy["value"] / 100)))
        # `Max` stands for the greatest change in either direction.
        return max(bounds) if (select == "Max") is grows else min(bounds)


def tolerance(autoscaler: HorizontalPodAutoscaler, way: Way, default: float) -> float:
    """The share of the size below which a change in one direction is ignored."""
    value = _rules(autoscaler, way).get("tolerance")
    if value is None:
        return default
    text = str(value)
    return float(text[:-1]) / 1000 if text.endswith("m") else float(text)


def _rules(autoscaler: HorizontalPodAutoscaler, way: Way) -> HPAScalingRules:
    return (autoscaler["spec"].get("behavior") or {}).get(way) or {}
