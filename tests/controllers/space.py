"""A namespace of a test's own: the API server called directly, with waiting by watches."""

from __future__ import annotations

import http.client
import json
from collections.abc import Callable
from typing import Any
from urllib.parse import urlencode

from tests.kube.conftest import Program, Server

Object = dict[str, Any]
Holds = Callable[[Object], object]

_GROUPS = {
    "apps": ("deployments", "replicasets", "statefulsets", "daemonsets", "controllerrevisions"),
    "batch": ("jobs", "cronjobs"),
    "autoscaling": ("horizontalpodautoscalers",),
    "policy": ("poddisruptionbudgets",),
    "discovery.k8s.io": ("endpointslices",),
    "scheduling.k8s.io": ("priorityclasses",),
    "storage.k8s.io": ("storageclasses",),
    "certificates.k8s.io": ("certificatesigningrequests",),
    "coordination.k8s.io": ("leases",),
    "networking.k8s.io": ("networkpolicies",),
    "rbac.authorization.k8s.io": ("clusterroles",),
    "apiextensions.k8s.io": ("customresourcedefinitions",),
}
_GROUP_OF = {plural: group for group, plurals in _GROUPS.items() for plural in plurals}
_CLUSTER = (
    "certificatesigningrequests",
    "customresourcedefinitions",
    "nodes",
    "namespaces",
    "persistentvolumes",
    "clusterroles",
    *_GROUPS["scheduling.k8s.io"],
    *_GROUPS["storage.k8s.io"],
)
#: Seconds for which something is waited for.
WAIT = 30


class Space:
    """What is in one namespace, by plural and name; cluster-scoped resources too."""

    def __init__(self, server: Server, kubectl: Program) -> None:
        self.server = server
        self.kubectl = kubectl
        self.name = kubectl.namespace

    def path(self, plural: str, name: str = "", sub: str = "", namespace: str | None = None) -> str:
        """The URL path of an object or a collection."""
        group = _GROUP_OF.get(plural)
        version = "v2" if group == "autoscaling" else "v1"
        root = f"/apis/{group}/{version}" if group else "/api/v1"
        if plural not in _CLUSTER:
            root += f"/namespaces/{namespace or self.name}"
        return "/".join(part for part in (root, plural, name, sub) if part)

    def make(self, plural: str, *objects: Object) -> Object:
        """Create objects; the last is returned."""
        for obj in objects:
            made: Object = self.server.make(self.path(plural), obj)
        return made

    def get(self, plural: str, name: str) -> Object:
        """One object."""
        answer = self.server.call("GET", self.path(plural, name))
        assert answer.status == 200, answer.body
        found: Object = answer.body
        return found

    def all(self, plural: str) -> list[Object]:
        """All objects, by name."""
        items: list[Object] = self.server.call("GET", self.path(plural)).body["items"]
        return sorted(items, key=lambda item: str(item["metadata"]["name"]))

    def living(self) -> list[Object]:
        """The pods that are not on their way out."""
        return [pod for pod in self.all("pods") if "deletionTimestamp" not in pod["metadata"]]

    def names(self, plural: str) -> list[str]:
        """Their names, sorted."""
        return [item["metadata"]["name"] for item in self.all(plural)]

    def patch(self, plural: str, name: str, patch: Any, sub: str = "", kind: str = "strategic-merge") -> Object:
        """Patch an object."""
        content = f"application/{kind}-patch+json"
        answer = self.server.call("PATCH", self.path(plural, name, sub), patch, content_type=content)
        assert answer.status == 200, answer.body
        changed: Object = answer.body
        return changed

    def status(self, plural: str, name: str, **status: Any) -> Object:
        """Patch an object's status."""
        return self.patch(plural, name, {"status": status}, "status")

    def delete(self, plural: str, name: str, **options: Any) -> None:
        """Delete an object."""
        answer = self.server.call("DELETE", self.path(plural, name), options or None)
        assert answer.status in (200, 202), answer.body

    def events(self, name: str) -> list[str]:
        """`Reason: message` of the events about an object, in their order."""
        found = [item for item in self.all("events") if item["involvedObject"]["name"] == name]
        found.sort(key=lambda item: str(item["metadata"]["name"].rpartition(".")[2]))
        return [f"{event['reason']}: {event['message']}" for event in found]

    def wait_event(self, name: str, reason: str, saying: str = "") -> str:
        """The message of the first event of a reason about an object, of those that say so where something is given."""
        found = self._wait(
            "events",
            f"involvedObject.name={name},reason={reason}",
            lambda change, event: change != "DELETED" and event["message"].startswith(saying),
            f"{reason} about {name}",
        )
        message: str = found["message"]
        return message

    def wait(self, plural: str, name: str, holds: Holds = lambda obj: True, namespace: str | None = None) -> Object:
        """Wait until an object is there and something holds of it."""
        return self._wait(
            plural,
            f"metadata.name={name}",
            lambda change, obj: change != "DELETED" and holds(obj),
            f"{plural}/{name}",
            namespace,
        )

    def wait_status(self, plural: str, name: str, **wanted: Any) -> Object:
        """Wait until the status has values; zero stands for absence. `observedGeneration` is that one or a later one."""

        def holds(obj: Object) -> bool:
            status = obj.get("status", {})
            return status.get("observedGeneration", 0) >= wanted.get("observedGeneration", 0) and all(
                status.get(key, 0) == value for key, value in wanted.items() if key != "observedGeneration"
            )

        return self.wait(plural, name, holds)

    def wait_any(self, plural: str, holds: Holds = lambda obj: True) -> Object:
        """Wait until something holds of any object."""
        return self._wait(plural, "", lambda change, obj: change != "DELETED" and holds(obj), plural)

    def wait_gone(self, plural: str, name: str) -> None:
        """Wait until there is no object of that name."""
        version = self.server.call("GET", self.path(plural)).body["metadata"]["resourceVersion"]
        if self.server.call("GET", self.path(plural, name)).status == 404:
            return
        self._wait(
            plural,
            f"metadata.name={name}",
            lambda change, obj: change == "DELETED",
            f"{plural}/{name} to go",
            since=version,
        )

    def _wait(
        self,
        plural: str,
        fields: str,
        holds: Callable[[str, Object], object],
        what: str,
        namespace: str | None = None,
        since: str = "",
    ) -> Object:
        query = {"watch": "true", "timeoutSeconds": str(WAIT), "resourceVersion": since}
        if fields:
            query["fieldSelector"] = fields
        address = self.server.cloud.config.addresses["kube"]
        connection = http.client.HTTPSConnection(
            address.host, address.port, context=self.server.tls, timeout=WAIT + 5
        )
        last: Object = {}
        try:
            connection.request("GET", f"{self.path(plural, namespace=namespace)}?{urlencode(query)}")
            response = connection.getresponse()
            assert response.status == 200, response.read()
            for line in response:
                event = json.loads(line)
                last = event["object"]
                assert event["type"] != "ERROR", last
                if holds(event["type"], last):
                    return last
        finally:
            connection.close()
        raise AssertionError(f"waited {WAIT} s for {what}; last seen: {json.dumps(last, indent=1)}")


def condition(obj: Object, kind: str) -> Object:
    """A condition by its type, empty where there is none."""
    return next((item for item in obj.get("status", {}).get("conditions") or () if item["type"] == kind), {})


def workload(name: str, life: str = "runs", annotations: dict[str, str] | None = None, **spec: Any) -> Object:
    """An object with a selector and a pod template."""
    return {
        "metadata": {"name": name},
        "spec": {"selector": {"matchLabels": {"app": name}}} | template(name, life, annotations) | spec,
    }


def template(name: str, life: str = "runs", annotations: dict[str, str] | None = None, **pod: Any) -> Object:
    """A pod template whose pods live so."""
    metadata = {"labels": {"app": name}, "annotations": {"life": life, **(annotations or {})}}
    spec = {"containers": [{"name": "c", "image": "x:1"}], "terminationGracePeriodSeconds": 1, **pod}
    return {"template": {"metadata": metadata, "spec": spec}}


def image(tag: str) -> Object:
    """A patch of a template's image."""
    return {"spec": {"template": {"spec": {"containers": [{"name": "c", "image": f"x:{tag}"}]}}}}


def images(pods: list[Object]) -> set[str]:
    """The images of pods."""
    return {pod["spec"]["containers"][0]["image"] for pod in pods}
