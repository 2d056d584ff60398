"""Invalid input gets a client's error, and other requests are still served."""

from __future__ import annotations

import contextlib
import copy
import json
import random
import socket
import uuid
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cumulet.kube.catalog.resources import RESOURCES, Row
from cumulet.kube.schema.definitions import Definition, Field, definition
from tests.kube.conftest import Server

PODS = "/api/v1/namespaces/default/pods"
MERGE, STRATEGIC, JSON_PATCH, APPLY = (
    f"application/{name}"
    for name in ("merge-patch+json", "strategic-merge-patch+json", "json-patch+json", "apply-patch+yaml")
)


def is_a_refusal(answer: Any) -> bool:
    return bool(
        is_foreseen(answer)
        and answer.status >= 400
        and answer.body["kind"] == "Status"
        and answer.body["code"] == answer.status
    )


def is_foreseen(answer: Any) -> bool:
    """Upstream reports 500 without a reason where a patch does not fit the kind; an unexpected error has a reason."""
    return answer.status < 500 or (answer.status == 500 and "reason" not in answer.body)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b'"text"',
        b"\xff\xfe",
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b'{"metadata":{"name":"x","labels":' + b'{"a":' * 5000 + b"1" + b"}" * 5000 + b"}}",
        b'{"metadata":{"name":1e999}}',
        b'{"metadata":[]}',
        b'{"metadata":{"name":{}}}',
        b'{"spec":"text"}',
        b'{"spec":{"containers":{}}}',
        b'{"spec":{"containers":[null]}}',
        b'{"spec":{"containers":[1]}}',
        b'{"kind":"Deployment","apiVersion":"apps/v1"}',
        b'{"kind":1,"apiVersion":[]}',
    ],
    ids=lambda body: repr(body[:30]),
)
def test_bodies_that_are_no_pods(server: Server, body: bytes) -> None:
    assert is_a_refusal(server.call("POST", PODS, body))


@pytest.mark.parametrize("key", ["apiVersion", "kind"])
@pytest.mark.parametrize(
    ("value", "seen"), [(-1, "number"), (0, "number"), (True, "bool"), (["x"], "array"), ({"a": "b"}, "object")]
)
def test_kinds_that_are_no_text(server: Server, key: str, value: Any, seen: str) -> None:
    body = json.dumps({key: value, "metadata": {"name": "p"}})
    answer = server.call("POST", "/api/v1/namespaces/default/pods?dryRun=All", body)
    assert answer.status == 400
    why = f"json: cannot unmarshal {seen} into Go struct field .{key} of type string ({body[:30]} ...)"
    start = "the object provided is unrecognized (must be of type Pod): couldn't get version/kind; json parse error"
    assert answer.body["message"] == f"{start}: {why}"


@pytest.mark.parametrize("metadata", ["x", -1, [], [1], True, {"namespace": 1}, {"labels": []}])
def test_configurations_with_no_metadata(server: Server, metadata: Any) -> None:
    path = "/apis/apps/v1/namespaces/default/deployments/d?fieldManager=m&dryRun=All"
    body = json.dumps({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": metadata})
    answer = server.call("PATCH", path, body, content_type="application/apply-patch+yaml")
    # Upstream reports this as its own failure too.
    start = "failed to create typed patch object (/; apps/v1, Kind=Deployment): .metadata"
    assert (answer.status, answer.body["message"].startswith(start)) == (500, True)


def test_a_body_too_large(server: Server) -> None:
    body = json.dumps({"metadata": {"name": "x", "annotations": {"a": "x" * (4 * 2**20)}}})
    answer = server.call("POST", PODS, body)
    assert answer.status == 413
    assert answer.body["reason"] == "RequestEntityTooLarge"


def test_yaml_bombs(server: Server) -> None:
    lines = ["a0: &a0 [x,x,x,x,x,x,x,x,x,x]"]
    lines += [f"a{number}: &a{number} [{','.join([f'*a{number - 1}'] * 10)}]" for number in range(1, 10)]
    assert is_a_refusal(server.call("POST", PODS, "\n".join(lines), content_type="application/yaml"))
    deep = "[" * 50_000
    assert is_a_refusal(server.call("POST", PODS, deep, content_type="application/yaml"))


@pytest.mark.parametrize(
    "media",
    [
        "application/vnd.kubernetes.protobuf",
        "application/cbor",
        "text/html",
        "application/x-www-form-urlencoded",
        ";;;",
    ],
)
def test_other_media(server: Server, media: str) -> None:
    for body in (b"k8s\x00", b"k8s\x00" + b"\xff" * 100, b"k8s\x00\x12\xff\xff\xff\xff\x0f", b"{}"):
        assert is_a_refusal(server.call("POST", PODS, body, content_type=media))


@pytest.fixture(scope="module")
def deployment(server: Server) -> str:
    """The path of a deployment to patch."""
    container = {"name": "c", "image": "x", "ports": [{"containerPort": 80}], "env": [{"name": "A", "value": "1"}]}
    labels = {"app": "x"}
    template = {"metadata": {"labels": labels}, "spec": {"containers": [container]}}
    spec = {"selector": {"matchLabels": labels}, "template": template}
    path = "/apis/apps/v1/namespaces/default/deployments"
    server.make(path, {"metadata": {"name": "target"}, "spec": spec})
    return f"{path}/target"


@pytest.mark.parametrize(
    ("media", "patch"),
    [
        (MERGE, []),
        (MERGE, {"metadata": None}),
        (MERGE, {"metadata": {"name": "other"}}),
        (MERGE, {"spec": None}),
        (MERGE, {"spec": {"template": None}}),
        (MERGE, {"spec": {"selector": None}}),
        (MERGE, {"spec": {"replicas": 2**70}}),
        (MERGE, {"spec": {"replicas": -1}}),
        (MERGE, {"spec": {"strategy": {"type": "Unheard"}}}),
        (STRATEGIC, {"spec": {"template": {"spec": {"containers": [{"image": "x"}]}}}}),
        (STRATEGIC, {"spec": {"template": {"spec": {"containers": [1]}}}}),
        (STRATEGIC, {"spec": {"template": {"spec": {"containers": {"$patch": "delete"}}}}}),
        (STRATEGIC, {"spec": {"template": {"spec": {"$setElementOrder/containers": 1}}}}),
        (STRATEGIC, {"$deleteFromPrimitiveList/a": 1}),
        (STRATEGIC, {"$patch": "delete"}),
        (JSON_PATCH, {}),
        (JSON_PATCH, [1]),
        (JSON_PATCH, [{"op": "unheard", "path": "/a"}]),
        (JSON_PATCH, [{"op": "add", "path": "no-pointer", "value": 1}]),
        (JSON_PATCH, [{"op": "remove", "path": ""}]),
        (JSON_PATCH, [{"op": "replace", "path": "", "value": 1}]),
        (JSON_PATCH, [{"op": "copy", "path": "/a"}]),
        (JSON_PATCH, [{"op": "move", "from": 1, "path": "/a"}]),
        (JSON_PATCH, [{"op": "add", "path": "/spec/template/spec/containers/99", "value": 1}]),
        (
            JSON_PATCH,
            [{"op": "add", "path": "/a", "value": ["x"]}] + [{"op": "copy", "from": "/a", "path": "/a/-"}] * 60,
        ),
        (JSON_PATCH, [{"op": "test", "path": "/kind", "value": "X"}] * 10_001),
        (APPLY, {"spec": 1}),
        (APPLY, {"metadata": {"managedFields": [{}]}}),
        (APPLY, {"metadata": {"name": "other"}}),
        (APPLY, {"spec": {"template": {"spec": {"containers": [{"image": "x"}]}}}}),
        (APPLY, {"spec": {"unheard": 1}}),
        (APPLY, []),
    ],
    ids=lambda value: json.dumps(value)[:60] if not isinstance(value, str) else value,
)  # fmt: skip
def test_patches_that_cannot_be(server: Server, deployment: str, media: str, patch: Any) -> None:
    before = server.call("GET", deployment).body
    answer = server.call("PATCH", f"{deployment}?fieldManager=x", patch, content_type=media)
    assert is_a_refusal(answer)
    assert server.call("GET", deployment).body == before


def test_patches_that_are_too_deep(server: Server, deployment: str) -> None:
    deep = '{"a":' * 900 + "1" + "}" * 900
    copies = [{"op": "copy", "from": "/a", "path": "/a/a"}] * 900
    for media, patch in (
        (STRATEGIC, f'{{"metadata":{deep}}}'),
        (JSON_PATCH, f'[{{"op":"add","path":"/a","value":{deep}}}]'),
        (JSON_PATCH, [{"op": "add", "path": "/a", "value": {}}, *copies]),
    ):
        answer = server.call("PATCH", deployment, patch, content_type=media)
        assert is_a_refusal(answer)


@pytest.mark.parametrize(
    "body",
    [
        {"metadata": 5},
        {"metadata": ["x"]},
        {"metadata": {"name": "x", "uid": {}}},
        {"metadata": {"name": "x"}, "target": "y"},
        {"metadata": {"name": "x"}, "target": {"name": ["y"]}},
        {"metadata": {"name": "x"}, "deleteOptions": "y"},
        {"metadata": {"name": "x"}, "deleteOptions": {"preconditions": 1}},
        {"metadata": {"name": "x"}, "deleteOptions": {"preconditions": {"uid": 1}}},
        {"metadata": {"name": "x"}, "deleteOptions": {"propagationPolicy": "y"}},
        {"metadata": {"name": "x"}, "deleteOptions": {"propagationPolicy": {}}},
        {"metadata": {"name": "x"}, "deleteOptions": {"dryRun": ["y"]}},
        {"spec": 1},
        {"spec": {"finalizers": 1}},
        {"spec": {"finalizers": {"a": 1}}},
        {"spec": {"finalizers": [{"a": 1}]}},
        {"spec": {"audiences": 1}},
    ],
    ids=str,
)
def test_what_sub_resources_cannot_take(server: Server, body: Any) -> None:
    name = f"n{uuid.uuid4().hex[:8]}"
    space = server.namespace(name)
    server.make(f"{space}/pods", {"metadata": {"name": "x"}, "spec": {"containers": [{"name": "c", "image": "x"}]}})
    answers = [
        server.call("POST", f"{space}/pods/x/binding", body),
        server.call("POST", f"{space}/pods/x/eviction", body),
        server.call("PUT", f"{space}/finalize", body),
        server.call("POST", f"{space}/serviceaccounts/default/token", body),
    ]
    assert all(answer.status < 500 for answer in answers)
    assert any(is_a_refusal(answer) for answer in answers)
    finalizers = server.call("GET", space).body["spec"].get("finalizers", [])
    assert all(isinstance(item, str) for item in finalizers)


@pytest.mark.parametrize(
    ("header", "status"),
    [
        (b"User-Agent: \xff\xfe/1", 201),
        (b"User-Agent: \xc3\xa9/1", 201),
        (b"Authorization: Bearer \xff", 401),
        (b"Impersonate-User: \xff", 400),
        (b"Impersonate-User: a\r\nImpersonate-Group: \xff", 400),
        (b"Impersonate-User: a\r\nImpersonate-Extra-a: \xff", 400),
        (b"Accept: \xff", 406),
    ],
)
def test_headers_that_are_no_text(server: Server, header: bytes, status: int) -> None:
    space = server.namespace(f"h{uuid.uuid4().hex[:8]}")
    body = b'{"metadata":{"name":"c"}}'
    address = server.cloud.config.addresses["kube"]
    with server.tls.wrap_socket(
        socket.create_connection((address.host, address.port)), server_hostname="localhost"
    ) as client:
        start = f"POST {space}/secrets HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n".encode()
        client.sendall(start + b"Content-Length: %d\r\n%b\r\n\r\n%b" % (len(body), header, body))
        assert client.recv(65536).startswith(b"HTTP/1.1 %d " % status)


@pytest.mark.parametrize("name", ["cpu", "memory", "hugepages-2Mi", "hugepages-1e99999999", "hugepages-1n", "a.b/c"])
@pytest.mark.parametrize("amount", ["1e99", "1e-99", "99E99", "1E", "9999999999999999999999999999", "0.000000001"])
def test_amounts_without_measure(server: Server, name: str, amount: str) -> None:
    space = server.namespace(f"q{uuid.uuid4().hex[:8]}")
    hard = {"requests.memory": "1Gi", "limits.cpu": "1e99", "cpu": amount}
    server.call("POST", f"{space}/resourcequotas", {"metadata": {"name": "q"}, "spec": {"hard": hard}})
    limits = [{"type": "Container", "max": {"cpu": "1e99"}, "min": {"memory": "1Ki"}}]
    server.call("POST", f"{space}/limitranges", {"metadata": {"name": "l"}, "spec": {"limits": limits}})
    resources = {"limits": {"cpu": "1", "memory": "1Mi", name: amount}}
    container = {"name": "c", "image": "x", "resources": resources}
    whole: list[dict[str, Any]] = [{}, {"resources": {"limits": {name: amount}}}, {"resources": {"requests": {}}}]
    for index, more in enumerate(whole):
        spec = {"containers": [container, {**container, "name": "d"}], **more}
        answer = server.call("POST", f"{space}/pods", {"metadata": {"name": f"p{index}"}, "spec": spec})
        assert answer.status < 500
        if answer.status == 201:
            assert server.call("PUT", f"{space}/pods/p{index}", answer.body).status == 200


def test_managed_fields_that_are_none(server: Server, deployment: str) -> None:
    for fields in (
        [{"fieldsV1": {"x": 1}}],
        [{"operation": "Update"}],
        [{"manager": "x", "operation": "Update", "fieldsV1": {"f:a": {"b": []}}}],
    ):
        answer = server.call("PATCH", deployment, {"metadata": {"managedFields": fields}}, content_type=MERGE)
        assert answer.status == 200
        managers = {entry["manager"] for entry in answer.body["metadata"].get("managedFields", [])}
        assert managers
        assert all("time" in entry for entry in answer.body["metadata"]["managedFields"])


@pytest.mark.parametrize(
    "query",
    [
        "limit=x",
        "limit=99999999999999999999999",
        "continue=x",
        "continue=e30",
        "continue=" + "A" * 1000,
        "resourceVersion=x",
        "resourceVersion=-1",
        "watch=true&resourceVersion=x",
        "watch=true&timeoutSeconds=x",
        "labelSelector=a%20b",
        "labelSelector=a+in+(",
        "labelSelector=!!!",
        "labelSelector=" + "a%3Db," * 20_000,
        "fieldSelector=spec.nope%3Da",
        "fieldSelector=====",
        "dryRun=Some",
    ],
    ids=lambda query: query[:40],
)  # fmt: skip
def test_queries_that_make_no_sense(server: Server, query: str) -> None:
    method = "DELETE" if query.startswith("dryRun") else "GET"
    path = f"{PODS}/x" if query.startswith("dryRun") else PODS
    assert 400 <= server.call(method, f"{path}?{query}").status < 500


def test_unknown_paths(server: Server) -> None:
    for path in (
        "/apis//v1/pods",
        "/api/v1/namespaces//pods",
        "/api/v1/pods/a/b/c/d",
        "/apis/apps/v1/%2e%2e",
        "/api/v1/nodes/a/unheard",
        "/openapi/v3/x",
        "/apis/unheard",
        "/api/v1/namespaces/default/pods/%00",
    ):
        assert server.call("GET", path).status in (400, 404), path


def test_a_slow_reader_of_a_watch_harms_nobody(server: Server) -> None:
    path = f"/api/v1/namespaces/{server.namespace(f'n{uuid.uuid4().hex[:8]}').rpartition('/')[2]}/configmaps"
    address = server.cloud.config.addresses["kube"]
    with server.tls.wrap_socket(
        socket.create_connection((address.host, address.port)), server_hostname="localhost"
    ) as slow:
        slow.sendall(f"GET {path}?watch=true HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        slow.recv(1)
        server.make(path, {"metadata": {"name": "c"}, "data": {"a": "x" * 500_000}})
        for number in range(40):
            answer = server.call("PATCH", f"{path}/c", {"data": {"b": str(number)}}, content_type=MERGE)
            assert answer.status == 200


def test_a_watch_that_nobody_reads_ends_with_its_time(server: Server) -> None:
    path = f"/api/v1/namespaces/{server.namespace(f'n{uuid.uuid4().hex[:8]}').rpartition('/')[2]}/configmaps"
    for number in range(40):
        server.make(path, {"metadata": {"name": f"c-{number}"}, "data": {"a": "x" * 500_000}})
    address = server.cloud.config.addresses["kube"]
    with server.tls.wrap_socket(
        socket.create_connection((address.host, address.port)), server_hostname="localhost"
    ) as slow:
        slow.sendall(f"GET {path}?watch=true&timeoutSeconds=1 HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        read = len(slow.recv(1))
        # It started later, so it ends later.
        version = server.call("GET", f"{path}?limit=1").body["metadata"]["resourceVersion"]
        server.call("GET", f"{path}?watch=true&timeoutSeconds=2&resourceVersion={version}")
        with contextlib.suppress(OSError):
            while data := slow.recv(1_000_000):
                read += len(data)
    assert read < 40 * 500_000


def _json() -> st.SearchStrategy[Any]:
    scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5)
    return st.recursive(
        scalars,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
        max_leaves=5,
    )


def _paths(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    found = [path]
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in pairs:
        found += _paths(item, (*path, key))
    return found


FULL = {
    "pods": {
        "metadata": {
            "name": "x",
            "labels": {"a": "b"},
            "annotations": {"a": "b"},
            "finalizers": ["a/b"],
            "ownerReferences": [{"apiVersion": "v1", "kind": "A", "name": "a", "uid": "u"}],
        },
        "spec": {
            "containers": [
                {
                    "name": "c",
                    "image": "x",
                    "ports": [{"containerPort": 80, "name": "a", "protocol": "TCP"}],
                    "env": [{"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}],
                    "resources": {"requests": {"cpu": "1"}, "limits": {"cpu": "1"}},
                    "livenessProbe": {"httpGet": {"port": 80}},
                    "lifecycle": {"postStart": {"exec": {"command": ["a"]}}},
                    "volumeMounts": [{"name": "v", "mountPath": "/v"}],
                    "securityContext": {"capabilities": {"add": ["A"]}},
                }
            ],
            "volumes": [{"name": "v", "secret": {"secretName": "x"}}],
            "tolerations": [{"key": "a", "operator": "Exists"}],
            "imagePullSecrets": [{"name": "s"}],
            "nodeSelector": {"a": "b"},
            "topologySpreadConstraints": [{"maxSkew": 1, "topologyKey": "a", "whenUnsatisfiable": "DoNotSchedule"}],
        },
    },
    "services": {
        "metadata": {"name": "x"},
        "spec": {
            "type": "LoadBalancer",
            "selector": {"a": "b"},
            "clusterIP": "",
            "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 1}},
            "ports": [{"port": 80, "targetPort": "a", "nodePort": 30001}],
        },
    },
    "secrets": {
        "metadata": {"name": "x"},
        "type": "kubernetes.io/tls",
        "data": {"tls.crt": "", "tls.key": ""},
        "stringData": {"a": "b"},
        "immutable": True,
    },
    "endpoints": {
        "metadata": {"name": "x"},
        "subsets": [{"addresses": [{"ip": "10.0.0.1"}], "ports": [{"port": 1}]}],
    },
    "events": {
        "metadata": {"name": "x"},
        "involvedObject": {"kind": "Pod", "name": "a"},
        "series": {"count": 1},
        "eventTime": "2026-01-01T00:00:00.000000Z",
    },
    "limitranges": {"metadata": {"name": "x"}, "spec": {"limits": [{"type": "Pod", "max": {"cpu": "1"}}]}},
}


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_any_object_with_anything_in_any_place(server: Server, data: st.DataObject) -> None:
    plural = data.draw(st.sampled_from(sorted(FULL)))
    obj = copy.deepcopy(FULL[plural])
    for _ in range(data.draw(st.integers(1, 3))):
        *parents, last = data.draw(st.sampled_from(_paths(obj)[1:]))
        target: Any = obj
        for key in parents:
            target = target[key]
        target[last] = data.draw(_json())
    path = f"/api/v1/namespaces/default/{plural}"
    answer = server.call("POST", f"{path}?dryRun=All", obj, accept="application/json;as=Table;v=v1;g=meta.k8s.io")
    assert answer.status < 500, (obj, answer.body)
    config = json.dumps(obj)
    answer = server.call("PATCH", f"{path}/x?fieldManager=m&dryRun=All", config, content_type=APPLY)
    assert answer.status < 500, (obj, answer.body)


class Garbage:
    """Objects of a kind by its schema, with any value in any place, and many fields missing."""

    _TEXTS = (
        "",
        "a",
        "x/y",
        "A_B",
        "-1",
        "0",
        "1Gi",
        "10m",
        "TCP",
        "ClientIP",
        "LoadBalancer",
        "ExternalName",
        "None",
    )
    _MORE_TEXTS = (
        "In",
        "*",
        "2026-01-01T00:00:00Z",
        "Limited",
        "Utilization",
        "Resource",
        "x" * 300,
        "é",
        "a b",
        "::1",
        "{}",
    )

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)

    def body(self, row: Row) -> dict[str, Any]:
        found = definition(row.group, row.version, row.kind)
        assert found is not None
        body = self._object(found, 0)
        metadata = body["metadata"] if isinstance(body.get("metadata"), dict) else {}
        kept = {key: metadata[key] for key in ("labels", "annotations", "generateName") if key in metadata}
        return {**body, "metadata": {**kept, "name": "garbage"}}

    def _text(self) -> str:
        return self._random.choice(self._TEXTS + self._MORE_TEXTS)

    def _object(self, of: Definition, depth: int) -> dict[str, Any]:
        often = 0.9 if depth == 0 else 0.5 if depth < 3 else 0.2
        return {
            name: self._value(field, depth)
            for name, field in of.fields.items()
            if depth < 7 and name not in ("kind", "apiVersion") and self._random.random() < often
        }

    def _value(self, field: Field, depth: int) -> Any:
        if self._random.random() < 0.02:
            return self._random.choice([None, 1, "x", [], {}, True, 1.5])
        many = range(self._random.choice([0, 1, 1, 2]))
        match field.type:
            case "string":
                return self._random.choice(["", "YQ=="]) if field.format == "byte" else self._text()
            case "integer" | "number":
                return self._random.choice([0, 1, -1, 5, 65536, 2**31 - 1, 600])
            case "boolean":
                return self._random.random() < 0.5
            case "any":
                return self._random.choice(["1", "1Gi", 0, 5, "50%", "x", -3])
            case "array":
                item = field.item
                return [self._object(item, depth + 1) if item is not None else self._text() for _ in many]
            case "map":
                item = field.item
                return {
                    self._text(): self._object(item, depth + 1) if item is not None else self._text() for _ in many
                }
        item = field.item
        return self._object(item, depth + 1) if item is not None else "2026-01-01T00:00:00Z"


@pytest.mark.parametrize("seed", range(1))
def test_any_kind_with_anything(server: Server, seed: int) -> None:
    """Every accepted object can be read, and written again."""
    garbage = Garbage(seed)
    name = f"g{uuid.uuid4().hex[:8]}"
    server.namespace(name)
    flow = "flowcontrol.apiserver.k8s.io"  # flow control objects stay and affect all requests
    rows = [row for row in RESOURCES if definition(row.group, row.version, row.kind) and row.group != flow]
    for row in rows:
        base = f"/apis/{row.api_version}" if row.group else "/api/v1"
        path = f"{base}/namespaces/{name}/{row.plural}" if row.namespaced else f"{base}/{row.plural}"
        dry = "" if row.namespaced or row.verbs == ("create",) else "?dryRun=All"
        answers = [server.call("POST", f"{path}{dry}", garbage.body(row))]
        if "update" in row.verbs:
            for part in ("", *(f"/{part}" for part in row.subresources if part != "proxy")):
                answers.append(server.call("PUT", f"{path}/garbage{part}{dry}", garbage.body(row)))
            apply = f"{path}/garbage?fieldManager=m&force=true{dry.replace('?', '&')}"
            config = {**garbage.body(row), "apiVersion": row.api_version, "kind": row.kind}
            answers.append(server.call("PATCH", apply, config, content_type=APPLY))
            answers.append(server.call("GET", path, accept="application/json;as=Table;v=v1;g=meta.k8s.io"))
            answers.append(server.call("GET", path, accept="application/vnd.kubernetes.protobuf"))
        for answer in answers:
            assert is_foreseen(answer), (row.kind, answer.body)
