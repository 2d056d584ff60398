"""Custom resources with several versions: stored in one, returned in another."""

from __future__ import annotations

import http.client
import json
import threading
import uuid
from collections.abc import Iterator
from typing import Any

import pytest

from tests.cloud import Answer
from tests.kube.conftest import Server
from tests.kube.hooks import Webhook

Object = dict[str, Any]

DEFINITIONS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
MERGE = "application/merge-patch+json"


def version(name: str, *fields: str, storage: bool = False) -> Object:
    spec = {"type": "object", "properties": {field: {"type": "string"} for field in fields}}
    schema = {"openAPIV3Schema": {"type": "object", "properties": {"spec": spec}}}
    scale = {"specReplicasPath": ".spec.count", "statusReplicasPath": ".status.count"}
    return {"name": name, "served": True, "storage": storage, "schema": schema, "subresources": {"scale": scale}}


class Kind:
    """A kind of servers, which has an `address` in `v1`, and a `host` and a `port` in `v2`."""

    def __init__(self, server: Server, hook: Webhook) -> None:
        self.group = f"g{uuid.uuid4().hex[:8]}.example.com"
        self.server = server
        self.hook = hook
        hook.answer = self._convert
        self.definition: Object = {
            "metadata": {"name": f"servers.{self.group}"},
            "spec": {
                "group": self.group,
                "names": {"plural": "servers", "kind": "Server"},
                "scope": "Namespaced",
                "versions": [version("v1", "address", storage=True), version("v2", "host", "port")],
                "conversion": {
                    "strategy": "Webhook",
                    "webhook": {"clientConfig": hook.config, "conversionReviewVersions": ["v1"]},
                },
            },
        }
        self.fault: Object = {}

    def _convert(self, request: Object) -> Object:
        found = []
        for obj in request["objects"]:
            spec = obj["spec"]
            if request["desiredAPIVersion"].endswith("/v2"):
                host, _, port = spec["address"].partition(":")
                new = {"host": host, "port": port}
            else:
                new = {"address": f"{spec['host']}:{spec['port']}"}
            labels = {**(obj["metadata"].get("labels") or {}), "converted": "yes"}
            metadata = {**obj["metadata"], "labels": labels}
            found.append({**obj, "apiVersion": request["desiredAPIVersion"], "metadata": metadata, "spec": new})
        return {"convertedObjects": found, "result": {"status": "Success"}} | self.fault

    def make(self) -> None:
        self.server.make(DEFINITIONS, self.definition)

    def path(self, version: str, name: str = "") -> str:
        return f"/apis/{self.group}/{version}/namespaces/default/servers" + (f"/{name}" if name else "")

    def get(self, version: str, name: str = "") -> Answer:
        return self.server.call("GET", self.path(version, name))

    def store_in(self, name: str) -> None:
        for item in self.definition["spec"]["versions"]:
            item["storage"] = item["name"] == name
        patch = {"spec": {"versions": self.definition["spec"]["versions"]}}
        path = f"{DEFINITIONS}/servers.{self.group}"
        answer = self.server.call("PATCH", path, patch, content_type=MERGE)
        assert answer.status == 200, answer.body


@pytest.fixture
def kind(server: Server) -> Iterator[Kind]:
    """The kind, not created yet."""
    hook = Webhook(server.cloud.config)
    kind = Kind(server, hook)
    yield kind
    server.call("DELETE", f"{DEFINITIONS}/servers.{kind.group}")
    hook.close()


class Watch:
    """The events of a watch, one after the other."""

    def __init__(self, server: Server, path: str) -> None:
        address = server.cloud.config.addresses["kube"]
        self._client = http.client.HTTPSConnection(address.host, address.port, context=server.tls, timeout=20)
        self._client.request("GET", f"{path}?watch=true&timeoutSeconds=60")
        self._lines: Iterator[bytes] | None = None

    def __enter__(self) -> Watch:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def __next__(self) -> Object:
        if self._lines is None:
            self._lines = iter(self._client.getresponse().readline, b"")
        return dict(json.loads(next(self._lines)))

    def __iter__(self) -> Iterator[Object]:
        return self


def server_of(kind: Kind, version: str, name: str, **spec: str) -> Object:
    return {"apiVersion": f"{kind.group}/{version}", "kind": "Server", "metadata": {"name": name}, "spec": spec}


def test_a_webhook_converts_what_is_read_and_written(kind: Kind) -> None:
    kind.make()
    server = kind.server
    made = server.make(kind.path("v2"), server_of(kind, "v2", "a", host="h", port="1"))
    assert (made["apiVersion"], made["spec"]) == (f"{kind.group}/v2", {"host": "h", "port": "1"})
    server.make(kind.path("v1"), server_of(kind, "v1", "b", address="i:2"))
    calls = len(kind.hook.requests)
    shown = kind.get("v1", "a").body
    assert shown["spec"] == {"address": "h:1"}
    assert shown["metadata"]["labels"] == {"converted": "yes"}
    assert len(kind.hook.requests) == calls  # stored in this version
    items = kind.get("v2").body["items"]
    assert [item["spec"] for item in items] == [{"host": "h", "port": "1"}, {"host": "i", "port": "2"}]
    assert {(item["apiVersion"], item["kind"]) for item in items} == {(f"{kind.group}/v2", "Server")}
    assert len(kind.hook.requests) == calls + 1  # one call for a whole list
    answer = server.call("PATCH", kind.path("v2", "b"), {"spec": {"port": "3"}}, content_type=MERGE)
    assert answer.body["spec"] == {"host": "i", "port": "3"}
    assert kind.get("v1", "b").body["spec"] == {"address": "i:3"}
    assert kind.get("v1", "b").body["metadata"]["resourceVersion"] == answer.body["metadata"]["resourceVersion"]
    # An update without changes writes nothing.
    again = server.call("PATCH", kind.path("v2", "b"), {"spec": {"port": "3"}}, content_type=MERGE)
    assert again.body["metadata"]["resourceVersion"] == answer.body["metadata"]["resourceVersion"]
    # A manager owns the fields of the version that it applied.
    applied = server_of(kind, "v2", "b", port="4")
    path = f"{kind.path('v2', 'b')}?fieldManager=me&force=true"
    answer = server.call("PATCH", path, applied, content_type="application/apply-patch+yaml")
    assert answer.body["spec"] == {"host": "i", "port": "4"}
    assert server.call("DELETE", kind.path("v2", "b")).status == 200


def test_what_was_stored_before_is_converted_when_it_is_written(kind: Kind) -> None:
    kind.make()
    server = kind.server
    old = server.make(kind.path("v1"), server_of(kind, "v1", "a", address="h:1"))
    kind.store_in("v2")
    definition = server.call("GET", f"{DEFINITIONS}/servers.{kind.group}").body
    assert definition["status"]["storedVersions"] == ["v1", "v2"]
    assert kind.get("v2", "a").body["spec"] == {"host": "h", "port": "1"}
    assert kind.get("v1", "a").body["spec"] == {"address": "h:1"}
    # An update without changes stores the object in the new version, as storage migration needs.
    whole = kind.get("v2", "a").body
    migrated = server.call("PUT", kind.path("v2", "a"), whole).body
    assert migrated["metadata"]["resourceVersion"] != old["metadata"]["resourceVersion"]
    without = {"spec": {"versions": [version("v2", "host", "port", storage=True)]}}
    path = f"{DEFINITIONS}/servers.{kind.group}"
    refused = server.call("PATCH", path, without, content_type=MERGE)
    assert (refused.status, refused.body["details"]["causes"][0]["field"]) == (422, "status.storedVersions[0]")
    forgotten = {"status": {"storedVersions": ["v2"]}}
    assert server.call("PATCH", f"{path}/status", forgotten, content_type=MERGE).status == 200
    assert server.call("PATCH", path, without, content_type=MERGE).status == 200
    assert kind.get("v1", "a").status == 404


def test_watches_are_converted(kind: Kind) -> None:
    kind.make()
    server = kind.server
    server.make(kind.path("v1"), server_of(kind, "v1", "a", address="h:1"))
    since = kind.get("v2").body["metadata"]["resourceVersion"]
    found: list[Answer] = []
    query = "watch=true&timeoutSeconds=2"
    threads = [
        threading.Thread(
            target=lambda rest=rest: found.append(server.call("GET", f"{kind.path('v2')}?{query}{rest}"))
        )
        for rest in ("", f"&resourceVersion={since}")
    ]
    for thread in threads:
        thread.start()
    for port in range(2, 6):
        server.call("PATCH", kind.path("v1", "a"), {"spec": {"address": f"h:{port}"}}, content_type=MERGE)
    for thread in threads:
        thread.join()
    for answer in found:
        objects = [event["object"] for event in answer.body]
        assert {obj["apiVersion"] for obj in objects} == {f"{kind.group}/v2"}
        ports = [obj["spec"]["port"] for obj in objects]
        assert ports == sorted(set(ports))
        assert ports[-1] == "5"


def deep(depth: int) -> Object:
    found: Object = {}
    for _ in range(depth):
        found = {"a": found}
    return found


@pytest.mark.parametrize(
    "fault",
    [
        {"result": "no"},
        {"convertedObjects": [{}]},
        {"convertedObjects": [deep(450)]},
        {"convertedObjects": deep(900)},
    ],
    ids=lambda fault: str(fault)[:30],
)
def test_a_watch_ends_when_conversion_fails(kind: Kind, fault: Object) -> None:
    kind.make()
    server = kind.server
    server.make(kind.path("v1"), server_of(kind, "v1", "a", address="h:1"))
    with Watch(server, kind.path("v2")) as watch:
        assert next(watch)["object"]["spec"] == {"host": "h", "port": "1"}
        kind.fault = fault
        server.call("PATCH", kind.path("v1", "a"), {"spec": {"address": "h:2"}}, content_type=MERGE)
        event = next(watch)
        assert (event["type"], event["object"]["code"]) == ("ERROR", 500)
        assert next(watch, None) is None
    kind.fault = {}
    with Watch(server, kind.path("v2")) as watch:
        assert next(watch)["object"]["spec"] == {"host": "h", "port": "2"}


def test_a_watch_goes_on_when_the_one_beside_it_ends(kind: Kind) -> None:
    kind.make()
    server = kind.server
    server.make(kind.path("v1"), server_of(kind, "v1", "a", address="h:1"))
    came, go = threading.Semaphore(0), threading.Event()
    convert = kind.hook.answer

    def slowly(request: Object) -> Object:
        came.release()
        assert go.wait(10)
        return convert(request)

    with Watch(server, kind.path("v2")) as first:
        next(first)
        kind.hook.answer = slowly
        server.call("PATCH", kind.path("v1", "a"), {"spec": {"address": "h:2"}}, content_type=MERGE)
        assert came.acquire(timeout=10)
        second = Watch(server, kind.path("v2"))
        server.call("GET", kind.path("v1", "a"))
    with second:
        server.call("GET", kind.path("v1", "a"))
        go.set()
        assert next(second)["object"]["spec"] == {"host": "h", "port": "2"}
        server.call("PATCH", kind.path("v1", "a"), {"spec": {"address": "h:3"}}, content_type=MERGE)
        assert next(second)["object"]["spec"] == {"host": "h", "port": "3"}


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ({"result": {"status": "Failed", "message": "not today"}}, "failed: not today"),
        ({"result": {}}, "failed: response.result.status was '', not 'Success'"),
        ({"result": "Success"}, "failed: response.result.status was '', not 'Success'"),
        ({"result": {"status": 1, "message": 2}}, "failed: 2"),
        ({"convertedObjects": {"a": 1}}, "failed: convertedObjects is not a list"),
        ({"convertedObjects": []}, "returned 0 objects, expected 1"),
        ({"convertedObjects": [{}]}, "returned invalid object at index 0: missing metadata in converted object"),
    ],
)
def test_a_webhook_that_fails(kind: Kind, fault: Object, message: str) -> None:
    kind.make()
    kind.server.make(kind.path("v1"), server_of(kind, "v1", "a", address="h:1"))
    kind.fault = fault
    for name in ("a", ""):
        answer = kind.get("v2", name)
        assert answer.status == 500
        assert answer.body["message"] == f"conversion webhook for {kind.group}/v1, Kind=Server {message}"
    assert kind.get("v1", "a").status == 200


def test_without_a_webhook_the_version_alone_changes(kind: Kind) -> None:
    kind.definition["spec"]["versions"] = [version("v1", "a", "b", storage=True), version("v2", "b", "c")]
    kind.definition["spec"]["conversion"] = {"strategy": "None"}
    kind.make()
    server = kind.server
    server.make(kind.path("v1"), server_of(kind, "v1", "x", a="1", b="2"))
    shown = kind.get("v2", "x").body
    assert (shown["apiVersion"], shown["spec"]) == (f"{kind.group}/v2", {"b": "2"})
    assert kind.get("v1", "x").body["spec"] == {"a": "1", "b": "2"}
    server.make(kind.path("v2"), server_of(kind, "v2", "y", b="3", c="4"))
    assert kind.get("v1", "y").body["spec"] == {"b": "3"}
    events = server.call("GET", f"{kind.path('v2')}?watch=true&timeoutSeconds=1").body
    assert [event["object"]["spec"] for event in events] == [{"b": "2"}, {"b": "3"}]


@pytest.mark.parametrize(
    ("conversion", "field"),
    [
        ({"strategy": "Magic"}, "spec.conversion.strategy"),
        ({"strategy": "Webhook"}, "spec.conversion.webhookClientConfig"),
        (
            {"strategy": "None", "webhook": {"conversionReviewVersions": ["v1"]}},
            "spec.conversion.conversionReviewVersions",
        ),
        (
            {
                "strategy": "Webhook",
                "webhook": {"clientConfig": {"url": "https://h"}, "conversionReviewVersions": ["v9"]},
            },
            "spec.conversion.conversionReviewVersions",
        ),
    ],
)
def test_conversions_that_are_refused(kind: Kind, conversion: Object, field: str) -> None:
    kind.definition["spec"]["conversion"] = conversion
    answer = kind.server.call("POST", DEFINITIONS, kind.definition)
    assert answer.status == 422
    assert field in [cause["field"] for cause in answer.body["details"]["causes"]], json.dumps(answer.body)


def test_admission_webhooks_see_the_version_that_they_know(kind: Kind, server: Server) -> None:
    kind.make()
    hook = Webhook(server.cloud.config)
    configurations = "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations"
    rule = hook.rule("old.example.com", "servers", "default")
    server.make(configurations, {"metadata": {"name": kind.group}, "webhooks": [rule]})
    try:
        server.make(kind.path("v2"), server_of(kind, "v2", "a", host="h", port="1"))
        assert hook.requests[0]["object"]["spec"] == {"address": "h:1"}
        assert hook.requests[0]["requestKind"]["version"] == "v2"
    finally:
        server.call("DELETE", f"{configurations}/{kind.group}")
        hook.close()
