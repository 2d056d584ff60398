"""Selects a node for one pod in memory, without waiting."""

from __future__ import annotations

from collections import OrderedDict
from itertools import chain
from typing import NamedTuple

from cumulet.scheduler.framework import Judge, Profile, Refusal
from cumulet.scheduler.requests import PodInfo
from cumulet.scheduler.state import Cluster, NodeState

#: The number of pod signatures whose results are cached, each with a row for every node.
_KINDS = 128
#: With more nodes than this the search stops at a share of them (`numFeasibleNodesToFind`).
_ENOUGH = 100


class Decision(NamedTuple):
    """The selected node, or the reasons why there is none: a refusal for each node, or one for all."""

    node: NodeState | None
    refusals: dict[str, Refusal]
    refused: Refusal | None = None


class _Row(NamedTuple):
    """The results of the local plug-ins for a node, valid for its generation."""

    generation: int
    refusal: Refusal | None
    points: float
    raw: tuple[float, ...]


class Decider:
    """Makes the decisions of one profile."""

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
            prepared = prepare(pod, self._cluster)
            if isinstance(prepared, Refusal):
                return Decision(None, {}, prepared)
            if prepared is not None:
                judges.append(prepared)
        rows = self._rows(pod.sign())
        nodes = self._nodes()
        enough = _enough(len(nodes))
        possible: list[NodeState] = []
        possible_rows: list[_Row] = []
        refusals: dict[str, Refusal] = {}
        examined = 0
        nominated = self._cluster.nominated
        for node in chain(nodes[self._start :], nodes[: self._start]):
            name = node.name
            row = rows.get(name)
            if row is None or row.generation != node.generation:
                row = rows[name] = self._examine(pod, node)
            refusal = row.refusal
            if refusal is None and judges:
                refusal = _first(judges, node)
            if refusal is None and name in nominated:
                refusal = self._with_nominated(pod, node)
            examined += 1
            if refusal is not None:
                refusals[node.name] = refusal
                continue
            possible.append(node)
            possible_rows.append(row)
            if len(possible) >= enough:
                break
        # The next search starts where this one ended, so that all nodes get their turn.
        self._start = (self._start + examined) % len(nodes) if len(nodes) > _ENOUGH else 0
        return Decision(self._best(pod, possible, possible_rows), refusals)

    def refusal(self, pod: PodInfo, node: NodeState) -> Refusal | None:
        """The reason why one node cannot take a pod, without the cache."""
        for test in self._filters:
            refusal = test(pod, node)
            if refusal is not None:
                return refusal
        for prepare in self._wide:
            prepared = prepare(pod, self._cluster)
            if isinstance(prepared, Refusal):
                return prepared
            if prepared is not None and (refusal := prepared(node)) is not None:
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
                rows.clear()  # most belong to nodes that are gone
        return rows

    def _nodes(self) -> list[NodeState]:
        if self._ordered != self._cluster.generation:
            self._order = sorted(self._cluster, key=lambda node: node.name)
            self._ordered = self._cluster.generation
        return self._order

    def _examine(self, pod: PodInfo, node: NodeState) -> _Row:
        for test in self._filters:
            refusal = test(pod, node)
            if refusal is not None:
                return _Row(node.generation, refusal, 0.0, ())
        points = sum(item.weight * item.score(pod, node) for item in self._as_is)
        return _Row(node.generation, None, points, tuple(item.score(pod, node) for item in self._scaled))

    def _with_nominated(self, pod: PodInfo, node: NodeState) -> Refusal | None:
        """The refusal once the nominated pods of at least the same priority are on the node too."""
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
        # Of equal nodes, select the one with the fewest pods, so that they take turns.
        equal = [node for node, total in zip(nodes, totals, strict=True) if total == best]
        return min(equal, key=lambda node: len(node.pods))


def _first(judges: list[Judge], node: NodeState) -> Refusal | None:
    for judge in judges:
        refusal = judge(node)
        if refusal is not None:
            return refusal
    return None


def _enough(nodes: int) -> int:
    """The number of feasible nodes after which the search stops."""
    if nodes <= _ENOUGH:
        return nodes
    percentage = max(50 - nodes // 125, 5)
    return max(nodes * percentage // 100, _ENOUGH)
