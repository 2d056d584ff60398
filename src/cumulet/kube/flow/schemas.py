"""The priority level of a request, by the FlowSchemas in the store."""

from __future__ import annotations

import math
from collections import OrderedDict
from typing import NamedTuple

from cumulet.common.kubernetes.objects import Object
from cumulet.kube.access.attributes import Attributes
from cumulet.kube.access.users import User
from cumulet.kube.flow.levels import EXEMPT, Level, Seat
from cumulet.kube.store import Store

GROUP = "flowcontrol.apiserver.k8s.io"
_SCHEMAS = f"flowschemas.{GROUP}"
_LEVELS = f"prioritylevelconfigurations.{GROUP}"
#: The seats of all levels. One process serves them, so more seats would only move the queue.
_SEATS = 256
_KNOWN = 4096


class _Schema(NamedTuple):
    level: str
    by: str
    rules: list[Object]


class Flows:
    """Assigns requests to levels, by the objects in the store."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._schemas: list[_Schema] = []
        self._levels: dict[str, Level] = {}
        self._known: OrderedDict[tuple[object, ...], tuple[Level | None, str]] = OrderedDict()
        for key in (_SCHEMAS, _LEVELS):
            store.on_change(key, self.refresh)
        self.refresh()

    def refresh(self) -> None:
        """Read the objects again; a request keeps its seat of a level that was deleted."""
        self._known.clear()
        schemas = sorted(
            (stored.load() for stored in self._store.list(_SCHEMAS)),
            key=lambda schema: (schema["spec"].get("matchingPrecedence", 1000), schema["metadata"]["name"]),
        )
        self._schemas = [
            _Schema(
                (schema["spec"].get("priorityLevelConfiguration") or {}).get("name", ""),
                (schema["spec"].get("distinguisherMethod") or {}).get("type", ""),
                schema["spec"].get("rules") or [],
            )
            for schema in schemas
        ]
        limited = {
            stored.name: stored.load()["spec"].get("limited") or {}
            for stored in self._store.list(_LEVELS)
            if stored.load()["spec"].get("type") == "Limited"
        }
        shares = {name: limits.get("nominalConcurrencyShares", 30) for name, limits in limited.items()}
        total = sum(shares.values()) or 1
        self._levels = {
            name: self._level(name, max(1, math.ceil(_SEATS * shares[name] / total)), limits)
            for name, limits in limited.items()
        }

    def _level(self, name: str, seats: int, limits: Object) -> Level:
        response = limits.get("limitResponse") or {}
        queuing = response.get("queuing") or {}
        waiting = queuing.get("queues", 64) * queuing.get("queueLengthLimit", 50)
        level = self._levels.get(name) or Level(name, seats, 0)
        level.seats = seats
        level.limit = waiting if response.get("type") == "Queue" else 0
        return level

    async def enter(self, user: User, wanted: Attributes) -> Seat:
        """Return a seat for a request. Raises `ApiError` 429."""
        level, flow = self._of(user, wanted)
        if level is None:
            return EXEMPT
        await level.enter(flow)
        return Seat(level)

    def _of(self, user: User, wanted: Attributes) -> tuple[Level | None, str]:
        # The object's name, and the user's extra, decide nothing.
        key = (user[:3], wanted[:5], wanted.path)
        assigned = self._known.get(key)
        if assigned is None:
            assigned = self._find(user, wanted)
            self._known[key] = assigned
            if len(self._known) > _KNOWN:
                self._known.popitem(last=False)
        return assigned

    def _find(self, user: User, wanted: Attributes) -> tuple[Level | None, str]:
        for schema in self._schemas:
            if any(_matches(rule, user, wanted) for rule in schema.rules):
                flow = {"ByUser": user.name, "ByNamespace": wanted.namespace}.get(schema.by, "")
                return self._levels.get(schema.level), flow
        return None, ""


def _matches(rule: Object, user: User, wanted: Attributes) -> bool:
    if not any(_is(subject, user) for subject in rule.get("subjects") or ()):
        return False
    if wanted.path:
        return any(
            _has(item, "verbs", wanted.verb) and _is_path(item, wanted.path)
            for item in rule.get("nonResourceRules") or ()
        )
    return any(_is_resource(item, wanted) for item in rule.get("resourceRules") or ())


def _is(subject: Object, user: User) -> bool:
    match subject.get("kind"):
        case "User":
            return (subject.get("user") or {}).get("name") in ("*", user.name)
        case "Group":
            name = (subject.get("group") or {}).get("name")
            return name == "*" or name in user.groups
        case "ServiceAccount":
            account = subject.get("serviceAccount") or {}
            start = f"system:serviceaccount:{account.get('namespace')}:"
            name = account.get("name")
            return user.name.startswith(start) if name == "*" else user.name == f"{start}{name}"
    return False


def _has(rule: Object, key: str, value: str) -> bool:
    values = rule.get(key) or ()
    return "*" in values or value in values


def _is_path(rule: Object, path: str) -> bool:
    return any(
        url in ("*", path) or (url.endswith("*") and path.startswith(url[:-1]))
        for url in rule.get("nonResourceURLs") or ()
    )


def _is_resource(rule: Object, wanted: Attributes) -> bool:
    full = f"{wanted.resource}/{wanted.subresource}" if wanted.subresource else wanted.resource
    if not (
        _has(rule, "verbs", wanted.verb) and _has(rule, "apiGroups", wanted.group) and _has(rule, "resources", full)
    ):
        return False
    return _has(rule, "namespaces", wanted.namespace) if wanted.namespace else bool(rule.get("clusterScope"))
