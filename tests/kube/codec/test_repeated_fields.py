"""Repeated fields in a body: rejected, warned about or ignored, by `fieldValidation`."""

from __future__ import annotations

import uuid

import pytest

from tests.kube.conftest import Server

TWICE = (
    '{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"%s","labels":{"a":"b","a":"c"}},'
    '"data":{"x":"1","x":"2"},"foo":1}'
)
SAID = ['duplicate field "metadata.labels.a"', 'duplicate field "data.x"', 'unknown field "foo"']
MAPS = "/api/v1/namespaces/default/configmaps"


@pytest.fixture
def name(server: Server) -> str:
    """The name of an existing config map."""
    name = f"c{uuid.uuid4().hex[:8]}"
    server.make(MAPS, {"metadata": {"name": name}, "data": {"x": "0"}})
    return name


def warning(*texts: str) -> str:
    return ", ".join('299 - "{}"'.format(text.replace('"', '\\"')) for text in texts)


@pytest.mark.parametrize("spaces", ["", " "])
def test_json(server: Server, name: str, spaces: str) -> None:
    body = (TWICE % f"{name}-2").replace('":', f'"{spaces}:')
    answer = server.call("POST", f"{MAPS}?fieldValidation=Strict", body)
    assert answer.status == 400
    start = 'ConfigMap in version "v1" cannot be handled as a ConfigMap: strict decoding error: '
    assert answer.body["message"] == start + ", ".join(SAID)
    answer = server.call("POST", f"{MAPS}?fieldValidation=Ignore&dryRun=All", body)
    assert (answer.status, "Warning" in answer.headers) == (201, False)
    answer = server.call("POST", MAPS, body)
    assert (answer.status, answer.body["data"]) == (201, {"x": "2"})
    assert answer.headers["Warning"] in (warning(*SAID), warning(SAID[-1]))  # the last of several headers


def test_warnings_come_with_a_failure_too(server: Server, name: str) -> None:
    answer = server.call("POST", MAPS, {"metadata": {"name": "A_b"}, "foo": 1})
    assert (answer.status, answer.headers["Warning"]) == (422, warning('unknown field "foo"'))


def test_a_colon_in_a_text_is_not_a_field(server: Server, name: str) -> None:
    data = {"a": '{"x":1,"x":2}', "b": '" :'}
    assert "Warning" not in server.call("PUT", f"{MAPS}/{name}", {"metadata": {"name": name}, "data": data}).headers


def test_yaml(server: Server, name: str) -> None:
    body = f'apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: {name}\ndata:\n  x: "1"\n  x: "2"\n'
    said = 'line 7: key "x" already set in map'
    media = {"content_type": "application/yaml"}
    answer = server.call("PUT", f"{MAPS}/{name}?fieldValidation=Strict", body, **media)
    assert answer.status == 400
    assert answer.body["message"].endswith(f"strict decoding error: yaml: unmarshal errors:\n  {said}")
    assert server.call("PUT", f"{MAPS}/{name}", body, **media).headers["Warning"] == warning(said)
    media = {"content_type": "application/apply-patch+yaml"}
    query = "fieldManager=me&force=true"
    answer = server.call("PATCH", f"{MAPS}/{name}?{query}&fieldValidation=Strict", body, **media)
    assert (answer.status, answer.body["message"]) == (
        400,
        f"error strict decoding YAML: error converting YAML to JSON: yaml: unmarshal errors:\n  {said}",
    )
    assert server.call("PATCH", f"{MAPS}/{name}?{query}", body, **media).headers["Warning"] == warning(said)


@pytest.mark.parametrize(
    ("kind", "patch", "said"),
    [
        ("merge", '{"data":{"x":"1","x":"2"}}', 'duplicate field "data.x"'),
        ("strategic-merge", '{"data":{"x":"1","x":"2"}}', 'duplicate field "data.x"'),
        ("merge", '{"foo":1}', 'unknown field "foo"'),
        ("json", '[{"op":"add","op":"add","path":"/data/x","value":"1"}]', 'json patch duplicate field "[0].op"'),
        ("json", '[{"op":"add","path":"/data/x","value":"1","zoo":3}]', 'json patch unknown field "[0].zoo"'),
    ],
)
def test_patches(server: Server, name: str, kind: str, patch: str, said: str) -> None:
    media = {"content_type": f"application/{kind}-patch+json"}
    answer = server.call("PATCH", f"{MAPS}/{name}?fieldValidation=Strict", patch, **media)
    assert (answer.status, answer.body["details"]["causes"][0]["field"]) == (422, "patch")
    assert answer.body["message"].startswith(' "" is invalid: patch: Invalid value: "{')
    assert answer.body["message"].endswith(f": strict decoding error: {said}")
    answer = server.call("PATCH", f"{MAPS}/{name}", patch, **media)
    assert (answer.status, answer.headers["Warning"]) == (200, warning(said))


def test_an_unknown_field_validation(server: Server, name: str) -> None:
    answer = server.call("POST", f"{MAPS}?fieldValidation=Bogus", {"metadata": {"name": name}})
    assert answer.status == 422
    assert answer.body["message"] == (
        'CreateOptions.meta.k8s.io "" is invalid: fieldValidation: Unsupported value: "Bogus": supported values: "", '
        '"Ignore", "Strict", "Warn"'
    )
