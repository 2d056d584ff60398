"""Schemas of custom resources: pruning, defaults, validation and ratcheting."""

from __future__ import annotations

import copy
import uuid
from collections.abc import Iterator
from typing import Any

import pytest

from tests.cloud import Answer
from tests.kube.conftest import Server

DEFINITIONS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
MERGE, APPLY = "application/merge-patch+json", "application/apply-patch+yaml"
_WHERE = "spec.validation.openAPIV3Schema.properties[spec].properties"


class Kind:
    """A custom kind whose schema can change."""

    def __init__(self, server: Server, **properties: Any) -> None:
        self.server = server
        self.group = f"g{uuid.uuid4().hex[:8]}.example.com"
        self.name = f"things.{self.group}"
        self.definition = self._definition(properties)
        space = f"k{uuid.uuid4().hex[:8]}"
        server.namespace(space)
        self.path = f"/apis/{self.group}/v1/namespaces/{space}/things"

    def _definition(self, properties: dict[str, Any], **top: Any) -> dict[str, Any]:
        schema = {"type": "object", "properties": {"spec": {"type": "object", "properties": properties}, **top}}
        version = {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}}
        return {
            "metadata": {"name": self.name},
            "spec": {
                "group": self.group,
                "scope": "Namespaced",
                "names": {"plural": "things", "kind": "Thing"},
                "versions": [version],
            },
        }

    def define(self) -> Answer:
        """Create the definition."""
        return self.server.call("POST", DEFINITIONS, self.definition)

    def redefine(self, **properties: Any) -> None:
        """Change the schema."""
        spec = self._definition(properties)["spec"]
        answer = self.server.call("PATCH", f"{DEFINITIONS}/{self.name}", {"spec": spec}, content_type=MERGE)
        assert answer.status == 200, answer.body

    def body(self, name: str = "a", /, **spec: Any) -> dict[str, Any]:
        """Return an object."""
        return {"apiVersion": f"{self.group}/v1", "kind": "Thing", "metadata": {"name": name}, "spec": spec}

    def post(self, name: str = "a", query: str = "", /, **spec: Any) -> Answer:
        """Create an object."""
        return self.server.call("POST", self.path + query, self.body(name, **spec))

    def get(self, name: str = "a") -> Any:
        """Return an object's spec."""
        return self.server.call("GET", f"{self.path}/{name}").body["spec"]


@pytest.fixture
def kind(server: Server) -> Iterator[Any]:
    """Return a constructor of kinds, which are deleted at the end."""
    kinds: list[Kind] = []

    def make(**properties: Any) -> Kind:
        made = Kind(server, **properties)
        assert made.define().status == 201
        kinds.append(made)
        return made

    yield make
    for item in kinds:
        server.call("DELETE", f"{DEFINITIONS}/{item.name}")


def causes(answer: Answer) -> list[tuple[str, str]]:
    assert answer.status == 422, answer.body
    return [(cause["field"], cause["message"]) for cause in answer.body["details"]["causes"]]


_KEEPS = {"x-kubernetes-preserve-unknown-fields": True}


@pytest.mark.parametrize(
    "schema",
    [
        _KEEPS,
        {"type": "array", "items": {"type": "object", **_KEEPS}},
        {"type": "array", **_KEEPS, "items": _KEEPS},
        {"type": "array", "items": _KEEPS},
    ],
)
@pytest.mark.parametrize("query", ["", "?fieldValidation=Strict"])
def test_unknown_fields_are_kept_where_they_are_preserved(
    server: Server, kind: Any, schema: dict[str, Any], query: str
) -> None:
    made = kind(any=schema)
    value = [{"name": "a", "emptyDir": {}, "deep": [{"x": [1, {"y": None}]}]}]
    assert made.post("a", query, any=value).status == 201
    assert made.get()["any"] == value
    applied = server.call("PATCH", f"{made.path}/b?fieldManager=m", made.body("b", any=value), content_type=APPLY)
    assert applied.status == 201, applied.body
    assert made.get("b")["any"] == value


def test_known_fields_below_preserved_ones_are_pruned(kind: Any) -> None:
    known = {"type": "object", "properties": {"a": {"type": "string"}}}
    made = kind(some={"type": "object", **_KEEPS, "properties": {"known": known}})
    answer = made.post(some={"free": {"x": 1}, "known": {"a": "b", "gone": 1}})
    assert answer.body["spec"]["some"] == {"free": {"x": 1}, "known": {"a": "b"}}
    answer = made.post("b", "?fieldValidation=Strict", some={"known": {"gone": 1}})
    assert answer.status == 400
    assert 'unknown field "spec.some.known.gone"' in answer.body["message"]


def test_unchanged_values_are_not_validated_again(server: Server, kind: Any) -> None:
    text = {"type": "string"}
    made = kind(
        name=text,
        other=text,
        list={"type": "array", "items": text},
        map={"type": "object", "additionalProperties": text},
    )
    old = {"name": "much too long", "other": "a", "list": ["much too long"], "map": {"a": "much too long", "b": "b"}}
    assert made.post(**old).status == 201
    short = {"type": "string", "maxLength": 5}
    made.redefine(
        name=short,
        other=text,
        list={"type": "array", "items": short},
        map={"type": "object", "additionalProperties": short},
    )
    kept: tuple[dict[str, Any], ...] = (
        {"metadata": {"labels": {"a": "b"}}},
        {"metadata": {"annotations": {"a": "b"}}},
        {"spec": {"other": "b"}},
        {"spec": {"map": {"b": "c"}}},
    )
    for patch in kept:
        answer = server.call("PATCH", f"{made.path}/a", patch, content_type=MERGE)
        assert answer.status == 200, answer.body
    refused: tuple[tuple[dict[str, Any], str], ...] = (
        ({"spec": {"name": "still too long"}}, "spec.name"),
        ({"spec": {"map": {"a": "still too long"}}}, "spec.map.a"),
        ({"spec": {"list": ["much too long", "b"]}}, "spec.list[0]"),
    )
    for patch, field in refused:
        answer = server.call("PATCH", f"{made.path}/a", patch, content_type=MERGE)
        assert [where for where, _ in causes(answer)] == [field]
    assert made.post("b", **old).status == 422


def test_keyed_elements_are_compared_by_key(server: Server, kind: Any) -> None:
    item = {"type": "object", "required": ["k"], "properties": {"k": {"type": "string"}, "v": {"type": "string"}}}
    keyed = {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["k"], "items": item}
    made = kind(list=keyed)
    assert made.post(list=[{"k": "a", "v": "too long"}, {"k": "b", "v": "b"}]).status == 201
    tightened = copy.deepcopy(keyed)
    tightened["items"]["properties"]["v"]["maxLength"] = 3  # type: ignore[index]
    made.redefine(list=tightened)
    spec = {"list": [{"k": "b", "v": "c"}, {"k": "a", "v": "too long"}]}
    assert server.call("PATCH", f"{made.path}/a", {"spec": spec}, content_type=MERGE).status == 200
    spec["list"][1]["v"] = "too long too"
    answer = server.call("PATCH", f"{made.path}/a", {"spec": spec}, content_type=MERGE)
    assert [where for where, _ in causes(answer)] == ["spec.list[1].v"]


def test_rules_warn_about_unchanged_values(server: Server, kind: Any) -> None:
    text = {"type": "string", "maxLength": 20}
    made = kind(name=text, other=text)
    assert made.post(name="BIG", other="a").status == 201
    ruled = {**text, "x-kubernetes-validations": [{"rule": "self.lowerAscii() == self", "message": "is not small"}]}
    made.redefine(name=ruled, other=text)
    answer = server.call("PATCH", f"{made.path}/a", {"spec": {"other": "b"}}, content_type=MERGE)
    assert answer.status == 200
    assert "is not small" in answer.headers["Warning"]
    answer = server.call("PATCH", f"{made.path}/a", {"spec": {"name": "BIGGER"}}, content_type=MERGE)
    assert causes(answer) == [("spec.name", 'Invalid value: "string": is not small')]


def test_later_defaults_apply_to_stored_objects(server: Server, kind: Any) -> None:
    made = kind(name={"type": "string"})
    assert made.post(name="x").status == 201
    made.redefine(
        name={"type": "string"},
        count={"type": "integer", "default": 3},
        deep={"type": "object", "default": {}, "properties": {"on": {"type": "boolean", "default": True}}},
    )
    wanted = {"name": "x", "count": 3, "deep": {"on": True}}
    assert made.get() == wanted
    listed = server.call("GET", made.path).body["items"]
    assert [item["spec"] for item in listed] == [wanted]
    watched = server.call("GET", f"{made.path}?watch=true&timeoutSeconds=1&resourceVersion=0").body
    assert watched[0]["object"]["spec"] == wanted
    # A rule with `oldSelf` sees them too, and the next change stores them.
    answer = server.call("PATCH", f"{made.path}/a", {"metadata": {"labels": {"a": "b"}}}, content_type=MERGE)
    assert answer.body["spec"] == wanted


@pytest.mark.parametrize(
    ("format_", "good", "bad"),
    [
        ("date-time", "2020-01-01T00:00:00Z", "2020-13-01T00:00:00Z"),
        ("date-time", "2020-01-01T00:00:00.123+02:00", "2020-01-01"),
        ("date", "2020-02-29", "2021-02-29"),
        ("duration", "1h30m", "1 lightyear"),
        ("ipv4", "10.0.0.1", "10.0.0.256"),
        ("ipv4", "127.0.0.1", "１２７.0.0.1"),
        ("ipv6", "fd00::1", "10.0.0.1"),
        ("cidr", "10.0.0.0/8", "10.0.0.0/33"),
        ("uri", "https://example.com/a", "example.com"),
        ("uuid", "123e4567-e89b-12d3-a456-426614174000", "123e4567"),
        ("uuid4", "123e4567-e89b-42d3-a456-426614174000", "123e4567-e89b-12d3-a456-426614174000"),
        ("byte", "aGVsbG8=", "*"),
        ("hostname", "a.example.com", "-a"),
        ("email", "a@example.com", "example.com"),
        ("mac", "00:00:5e:00:53:01", "00:00:5e"),
        ("bsonobjectid", "507f1f77bcf86cd799439011", "507f"),
        ("isbn10", "0321751043", "0321751044"),
        ("isbn13", "978-0321751041", "978-0321751042"),
        ("creditcard", "4111 1111 1111 1111", "4111 1111 1111 1112"),
        ("ssn", "123-45-6789", "12-345-6789"),
        ("hexcolor", "#FFFFFF", "#GGG"),
        ("rgbcolor", "rgb(1, 2, 255)", "rgb(1,2,256)"),
        ("k8s-short-name", "a-b", "A"),
        ("k8s-long-name", "a.b", "a..b"),
        ("unheard-of", "anything", None),
        ("int32", "anything", None),
    ],
)
def test_formats(kind: Any, format_: str, good: str, bad: str | None) -> None:
    made = kind(field={"type": "string", "format": format_})
    assert made.post(field=good).status == 201
    if bad is not None:
        ((where, said),) = causes(made.post("b", field=bad))
        assert where == "spec.field"
        assert f'spec.field in body must be of type {format_}: "{bad}"' in said


@pytest.mark.parametrize(
    ("schema", "why"),
    [
        ({"type": "string", "default": 1}, "must be of type string"),
        ({"type": "string", "maxLength": 2, "default": "long"}, "may not be more than 2 bytes"),
        ({"type": "string", "enum": ["a"], "default": "b"}, "Unsupported value"),
        (
            {"type": "object", "required": ["a"], "properties": {"a": {"type": "string"}}, "default": {}},
            "Required value",
        ),
        (
            {"type": "object", "properties": {"a": {"type": "string"}}, "default": {"b": 1}},
            "must not have unknown fields",
        ),
        ({"type": "array", "items": {"type": "integer"}, "default": ["a"]}, "must be of type integer"),
    ],
)
def test_a_default_must_be_valid(server: Server, schema: dict[str, Any], why: str) -> None:
    answer = Kind(server, field=schema).define()
    ((where, said),) = causes(answer)
    assert where.startswith(f"{_WHERE}[field].default")
    assert why in said


def test_embedded_resources(kind: Any) -> None:
    made = kind(object={"type": "object", "x-kubernetes-embedded-resource": True, **_KEEPS})
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "p", "labels": {"a": "b"}, "unknown": 1},
        "spec": {"x": 1},
    }
    answer = made.post(object=pod)
    assert answer.status == 201, answer.body
    kept = {**pod, "metadata": {"name": "p", "labels": {"a": "b"}}}
    assert made.get()["object"] == kept
    assert causes(made.post("b", object={"spec": {}})) == [
        ("spec.object.apiVersion", "Required value"),
        ("spec.object.kind", "Required value"),
    ]
    for field, value in (("apiVersion", ""), ("apiVersion", "a/b/c"), ("kind", ""), ("kind", "No Kind"), ("kind", 1)):
        answer = made.post("b", object={**kept, field: value})
        assert [where for where, _ in causes(answer)] == [f"spec.object.{field}"]


def test_errors_after_which_rules_are_evaluated(kind: Any) -> None:
    rule = [{"rule": "self.a > self.b", "message": "a is not above b"}]
    number = {"type": "integer", "maximum": 100}
    made = kind(
        pair={
            "type": "object",
            "required": ["a"],
            "properties": {"a": number, "b": number, "text": {"type": "string", "pattern": "^a", "maxLength": 5}},
            "x-kubernetes-validations": rule,
        }
    )
    why = "some validation rules were not checked because the object was invalid"
    unchecked = ("<nil>", f"Invalid value: null: {why}; correct the existing errors to complete validation")
    broken = ("spec.pair", 'Invalid value: "object": a is not above b')
    for pair in ({"a": 1, "b": 200}, {"a": 1, "b": 2, "text": "b"}):
        found = causes(made.post(pair=pair))
        assert len(found) == 2
        assert found[-1] == broken
    for pair in ({"b": 2}, {"a": "x", "b": 2}, {"a": 1, "b": 2, "text": "a" * 6}):
        found = causes(made.post(pair=pair))
        assert len(found) == 2
        assert found[-1] == unchecked
