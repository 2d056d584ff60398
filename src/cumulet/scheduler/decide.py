"""Chooses a node for one pod, at once and in memory."""

from __future__ import annotations

from collections import OrderedDict
from itertools import chain
from typing import NamedTuple

from cumulet.scheduler.framework import Judge, Profile, Refusal
from cumulet.scheduler.requests import PodInfo
from cumulet.scheduler.state import Cluster, NodeState

#: How many kinds of pods are remembered, each with what it found out about every node.
_KINDS = 128
#: Of more nodes than this not all are looked at (`numFeasibleNodesToFind`).
_ENOUGH = 100


class Decision(NamedTuple):
    """The node, or why there is none: each node's refusal, or one that goes for all."""

    node: NodeState | None
    refusals: dict[str, Refusal]
    refused: Refusal | None = None


class _Row(NamedTuple):
    """What local plug-ins said of a node, good for its generation."""

    generation: int
    refusal: Refusal | None
    points: float
    raw: tuple[float, ...]


class Decider:
    """One profile's decisions."""

    def __init__(self, cluster: Cluster, profile: Profile) -> None:
        self._cluster = cluster
        self._filters = tuple(profile.local_filters.values())
        self._wide = tuple(profile.wide_filters.values())
        self._as_is = tuple(item for item in profile.local_scores.values() if item.scale == "as-is")
        self._scaled = tuple(item for item in profile.local_scores.values() if item.scale != "as-is")
        self._wide_scores = tuple(profile.wide_scores.values())
        self._known: OrderedDict[bytes, dict[str, _Row]] = OrderedDict()
        self._order: list[NodeState] = []
        self._ordered = -1
        self._start = 0

    def decide(self, pod: PodInfo) -> Decision:
        """The best node for a pod."""
        judges: list[Judge] = []
        for prepare in self._wide:
            found = prepare(pod, self._cluster)
            if isinstance(found, Refusal):
                return Decision(None, {}, found)
            if found is not None:
                judges.append(found)
        rows = self._rows(pod.sign())
        nodes = self._nodes()
        enough = _enough(len(nodes))
        possible: list[NodeState] = []
        seen: list[_Row] = []
        refusals: dict[str, Refusal] = {}
        looked_at = 0
        nominated = self._cluster.nominated
        for node in chain(nodes[self._start :], nodes[: self._start]):
            name = node.name
            row = rows.get(name)
            if row is None or row.generation != node.generation:
                row = rows[name] = self._look(pod, node)
            refusal = row.refusal
            if refusal is None and judges:
                refusal = _first(judges, node)
            if refusal is None and name in nominated:
                refusal = self._with_nominated(pod, node)
            looked_at += 1
            if refusal is not None:
                refusals[node.name] = refusal
                continue
            possible.append(node)
            seen.append(row)
            if len(possible) >= enough:
                break
        # The next one begins where this one ended, so that all nodes have their turn.
        self._start = (self._start + looked_at) % len(nodes) if len(nodes) > _ENOUGH else 0
        return Decision(self._best(pod, possible, seen), refusals)

    def refusal(self, pod: PodInfo, node: NodeState) -> Refusal | None:
        """Why one node cannot take a pod, found out anew."""
        for test in self._filters:
            refusal = test(pod, node)
            if refusal is not None:
                return refusal
        for prepare in self._wide:
            found = prepare(pod, self._cluster)
            if isinstance(found, Refusal):
                return found
            if found is not None and (refusal := found(node)) is not None:
                return refusal
        return None

    def _rows(self, signature: bytes) -> dict[str, _Row]:
        rows = self._known.get(signature)
        if rows is None:
            rows = self._known[signature] = {}
            if len(self._known) > _KINDS:
                self._known.popitem(last=False)
        else:
            self._known.move_to_end(signature)
            if len(rows) > 2 * len(self._cluster) + 8:
                rows.clear()  # most are of nodes that are gone
        return rows

    def _nodes(self) -> list[NodeState]:
        if self._ordered != self._cluster.generation:
            self._order = sorted(self._cluster, key=lambda node: node.name)
            self._ordered = self._cluster.generation
        return self._order

    def _look(self, pod: PodInfo, node: NodeState) -> _Row:
        for test in self._filters:
            refusal = test(pod, node)
            if refusal is not None:
                return _Row(node.generation, refusal, 0.0, ())
        points = sum(item.weight * item.score(pod, node) for item in self._as_is)
        return _Row(node.generation, None, points, tuple(item.score(pod, node) for item in self._scaled))

    def _with_nominated(self, pod: PodInfo, node: NodeState) -> Refusal | None:
        """Whether there is room also once those of the same or a higher priority are there that wait for it."""
        waiting = [
            other
            for uid, other in self._cluster.nominated[node.name].items()
            if uid != pod.uid and other.priority >= pod.priority and self._cluster.node_of(uid) is None
        ]
        if not waiting:
            return None
        try:
            for other in waiting:
                self._cluster.place(other, node.name)
            return self.refusal(pod, node)
        finally:
            for other in waiting:
                self._cluster.forget(other.uid)

    def _best(self, pod: PodInfo, nodes: list[NodeState], rows: list[_Row]) -> NodeState | None:
        if len(nodes) < 2:
            return nodes[0] if nodes else None
        totals = [row.points for row in rows]
        distinct = {row.raw for row in rows}
        for number, item in enumerate(self._scaled):
            most = max(raw[number] for raw in distinct)
            if not most:
                continue
            factor = item.weight * 100.0 / most
            if item.scale == "fewest":
                factor = -factor
            for place, row in enumerate(rows):
                totals[place] += factor * row.raw[number]
        for score, weight in self._wide_scores:
            points = score(pod, nodes, self._cluster)
            for place, value in enumerate(points or ()):
                totals[place] += weight * value
        best = max(totals)
        # Among equals the one with the fewest pods, so that they take turns.
        equal = [node for node, total in zip(nodes, totals, strict=True) if total == best]
        return min(equal, key=lambda node: len(node.pods))


def _first(judges: list[Judge], node: NodeState) -> Refusal | None:
    for judge in judges:
        refusal = judge(node)
        if refusal is not None:
            return refusal
    return None


def _enough(nodes: int) -> int:
    """How many nodes that can take a pod are enough to choose from."""
    if nodes <= _ENOUGH:
        return nodes
    percentage = max(50 - nodes // 125, 5)
    return max(nodes * percentage // 100, _ENOUGH)
