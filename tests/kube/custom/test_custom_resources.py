"""Custom resources, through kubectl and plain requests."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest

from tests.kube.conftest import Program, Server

DEFINITION: dict[str, Any] = {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
    "metadata": {"name": "crontabs.example.com"},
    "spec": {
        "group": "example.com",
        "scope": "Namespaced",
        "names": {"plural": "crontabs", "kind": "CronTab", "shortNames": ["ct"], "categories": ["all"]},
        "versions": [
            {
                "name": "v1",
                "served": True,
                "storage": True,
                "subresources": {
                    "status": {},
                    "scale": {
                        "specReplicasPath": ".spec.replicas",
                        "statusReplicasPath": ".status.replicas",
                        "labelSelectorPath": ".status.selector",
                    },
                },
                "additionalPrinterColumns": [
                    {"name": "When", "type": "string", "jsonPath": ".spec.when"},
                    {"name": "Replicas", "type": "integer", "jsonPath": ".spec.replicas"},
                    {"name": "Ready", "type": "string", "jsonPath": '.status.conditions[?(@.type=="Ready")].status'},
                    {"name": "Image", "type": "string", "jsonPath": ".spec.image", "priority": 1},
                ],
                "schema": {
                    "openAPIV3Schema": {
                        "type": "object",
                        "description": "A table of times.",
                        "properties": {
                            "spec": {
                                "type": "object",
                                "required": ["when"],
                                "properties": {
                                    "when": {"type": "string", "minLength": 1, "description": "The time."},
                                    "image": {"type": "string", "pattern": "^[a-z]+$"},
                                    "replicas": {"type": "integer", "minimum": 0, "maximum": 9, "default": 1},
                                    "policy": {"type": "string", "enum": ["Allow", "Forbid"], "default": "Allow"},
                                    "ports": {
                                        "type": "array",
                                        "x-kubernetes-list-type": "map",
                                        "x-kubernetes-list-map-keys": ["port"],
                                        "items": {
                                            "type": "object",
                                            "required": ["port"],
                                            "properties": {
                                                "port": {"type": "integer"},
                                                "target": {"x-kubernetes-int-or-string": True},
                                            },
                                        },
                                    },
                                    "extra": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
                                    "labels": {"type": "object", "additionalProperties": {"type": "string"}},
                                },
                            },
                            "status": {
                                "type": "object",
                                "x-kubernetes-preserve-unknown-fields": True,
                            },
                        },
                    }
                },
            }
        ],
    },
}
PATH = "/apis/example.com/v1/namespaces/default/crontabs"


@pytest.fixture(scope="module", autouse=True)
def definition(server: Server) -> Any:
    """The definition of the kind, created."""
    return server.make("/apis/apiextensions.k8s.io/v1/customresourcedefinitions", DEFINITION)


def crontab(name: str, **spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "example.com/v1",
        "kind": "CronTab",
        "metadata": {"name": name},
        "spec": {"when": "now", **spec},
    }


def test_a_definition_is_established(definition: Any) -> None:
    conditions = {item["type"]: item["status"] for item in definition["status"]["conditions"]}
    assert conditions == {"NamesAccepted": "True", "Established": "True"}
    assert definition["status"]["acceptedNames"]["singular"] == "crontab"
    assert definition["status"]["storedVersions"] == ["v1"]


def test_defaults_pruning_and_generation(server: Server) -> None:
    answer = server.call(
        "POST", PATH, crontab("a", unheard=1, extra={"kept": {"x": 1}}, labels={"a": "b"}) | {"status": {"x": 1}}
    )
    assert answer.status == 201
    assert answer.headers["Warning"] == '299 - "unknown field \\"spec.unheard\\""'
    assert answer.body["spec"] == {
        "when": "now",
        "replicas": 1,
        "policy": "Allow",
        "extra": {"kept": {"x": 1}},
        "labels": {"a": "b"},
    }
    assert "status" not in answer.body
    assert answer.body["metadata"]["generation"] == 1
    body = server.call(
        "PATCH", f"{PATH}/a", {"spec": {"replicas": 2}}, content_type="application/merge-patch+json"
    ).body
    assert body["metadata"]["generation"] == 2
    body = server.call(
        "PATCH",
        f"{PATH}/a/status",
        {"status": {"replicas": 2}, "spec": {"replicas": 7}},
        content_type="application/merge-patch+json",
    ).body
    assert (body["metadata"]["generation"], body["spec"]["replicas"], body["status"]) == (2, 2, {"replicas": 2})


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"when": ""}, 'spec.when: Invalid value: "": spec.when in body should be at least 1 chars long'),
        ({"image": "A1"}, "spec.image: Invalid value: \"A1\": spec.image in body should match '^[a-z]+$'"),
        ({"replicas": 10}, "spec.replicas: Invalid value: 10: spec.replicas in body should be less than or equal to 9"),
        ({"replicas": "a"}, 'spec.replicas: Invalid value: "string": spec.replicas in body must be of type integer: "string"'),
        ({"policy": "No"}, 'spec.policy: Unsupported value: "No": supported values: "Allow", "Forbid"'),
        ({"ports": [{}]}, "spec.ports[0].port: Required value"),
        ({"ports": [{"port": 1}, {"port": 1}]}, 'spec.ports[1]: Duplicate value: {"port":1}'),
        ({"ports": [{"port": 1, "target": []}]}, "spec.ports[0].target in body must be of type integer,string"),
        ({"labels": {"a": 1}}, 'spec.labels.a in body must be of type string: "integer"'),
    ],
)  # fmt: skip
def test_schema_violations(server: Server, spec: dict[str, Any], message: str) -> None:
    answer = server.call("POST", PATH, crontab("bad", **spec))
    assert answer.status == 422
    assert message in answer.body["message"]


def test_strictness(server: Server) -> None:
    answer = server.call("POST", f"{PATH}?fieldValidation=Strict", crontab("bad", unheard=1))
    assert answer.status == 400
    assert 'strict decoding error: unknown field "spec.unheard"' in answer.body["message"]
    patch = server.call("PATCH", f"{PATH}/a", {}, content_type="application/strategic-merge-patch+json")
    assert patch.status == 415


def test_scale(server: Server) -> None:
    server.make(PATH, crontab("scaled"))
    path = f"{PATH}/scaled/scale"
    assert server.call("GET", path).body["spec"] == {"replicas": 1}
    patch = server.call("PATCH", path, {"spec": {"replicas": 3}}, content_type="application/merge-patch+json")
    assert patch.body["spec"] == {"replicas": 3}
    assert server.call("GET", f"{PATH}/scaled").body["spec"]["replicas"] == 3


def test_lists_that_merge_by_key_are_owned_by_element(server: Server) -> None:
    def apply(manager: str, *ports: dict[str, Any]) -> Any:
        body = json.dumps(crontab("owned", ports=list(ports)))
        path = f"{PATH}/owned?fieldManager={manager}"
        return server.call("PATCH", path, body, content_type="application/apply-patch+yaml")

    assert apply("one", {"port": 80, "target": "web"}).status == 201
    assert apply("two", {"port": 81, "target": 8081}).body["spec"]["ports"] == [
        {"port": 80, "target": "web"},
        {"port": 81, "target": 8081},
    ]
    refused = apply("two", {"port": 80, "target": "other"})
    assert refused.status == 409
    assert refused.body["details"]["causes"][0]["field"] == ".spec.ports[port=80].target"
    assert apply("one").body["spec"]["ports"] == [{"port": 81, "target": 8081}]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"metadata": {"name": "others.example.com"}}, 'must be spec.names.plural+"."+spec.group'),
        ({"spec": {"scope": "Galaxy"}}, 'spec.scope: Unsupported value: "Galaxy"'),
        ({"spec": {"versions": []}}, "must have exactly one version marked as storage version"),
    ],
)
def test_bad_definitions(server: Server, change: Any, message: str) -> None:
    bad = copy.deepcopy(DEFINITION)
    for part, fields in change.items():
        bad[part].update(fields)
    answer = server.call("POST", "/apis/apiextensions.k8s.io/v1/customresourcedefinitions", bad)
    assert answer.status == 422
    assert message in answer.body["message"]


def test_a_schema_must_be_structural(server: Server) -> None:
    bad = copy.deepcopy(DEFINITION)
    version = bad["spec"]["versions"][0]
    for schema, message in (
        (None, "spec.versions[0].schema.openAPIV3Schema: Required value"),
        ({"type": "string"}, "must be object at the root"),
        ({"type": "object", "properties": {"a": {}}}, "properties[a].type: Required value"),
        ({"type": "object", "properties": {"a": {"type": "array"}}}, "properties[a].items: Required value"),
        ({"type": "object", "properties": {"a": {"type": "string", "pattern": "("}}}, "valid regular expression"),
    ):
        version["schema"] = {"openAPIV3Schema": schema} if schema else {}
        answer = server.call("POST", "/apis/apiextensions.k8s.io/v1/customresourcedefinitions", bad)
        assert answer.status == 422
        assert message in answer.body["message"]


@pytest.mark.parametrize(
    ("pattern", "words"),
    [
        ("(a", "missing closing ): `(a`"),
        ("*a", "missing argument to repetition operator: `*`"),
        ("a++", "invalid nested repetition operator: `++`"),
        ("a{1001}", "invalid repeat count: `{1001}`"),
        ("(?=a)", "invalid or unsupported Perl syntax: `(?=`"),
        ("x(?<=a)b", "invalid named capture: `(?<=a)b`"),
        ("\\", "trailing backslash at end of expression: ``"),
    ],
)
def test_patterns_are_regular_expressions_of_go(server: Server, pattern: str, words: str) -> None:
    bad = changed(openAPIV3Schema={"type": "object", "properties": {"a": {"type": "string", "pattern": pattern}}})
    answer = server.call("POST", "/apis/apiextensions.k8s.io/v1/customresourcedefinitions", bad)
    assert answer.status == 422
    (cause,) = answer.body["details"]["causes"]
    assert cause["field"] == "spec.validation.openAPIV3Schema.properties[a].pattern"
    assert cause["message"].endswith(f"must be a valid regular expression, but isn't: error parsing regexp: {words}")


def test_a_pattern_takes_linear_time(server: Server) -> None:
    """A backtracking engine would need longer than the age of the universe for this object."""
    slow = copy.deepcopy(DEFINITION)
    slow["metadata"]["name"], slow["spec"]["names"] = "slows.example.com", {"plural": "slows", "kind": "Slow"}
    schema = slow["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    schema["properties"]["spec"]["properties"]["image"]["pattern"] = "^(a+)+$"
    server.make("/apis/apiextensions.k8s.io/v1/customresourcedefinitions", slow)
    path = PATH.replace("crontabs", "slows")
    for image, status in (("a" * 10_000, 201), ("a" * 10_000 + "b", 422)):
        made = crontab(f"of-{status}", image=image) | {"kind": "Slow"}
        assert server.call("POST", path, made).status == status


@pytest.mark.parametrize(
    ("part", "field", "message"),
    [
        ({"additionalPrinterColumns": [{"type": "string", "jsonPath": ".a"}]}, "[0].name", "Required value"),
        (
            {"additionalPrinterColumns": [{"name": "A", "type": "text", "jsonPath": ".a"}]},
            "[0].type",
            "must be one of",
        ),
        (
            {"additionalPrinterColumns": [{"name": "A", "type": "date", "jsonPath": "a"}]},
            "[0].JSONPath",
            "starting with .",
        ),
        ({"selectableFields": [{"jsonPath": "a"}]}, "[0].jsonPath", "is an invalid path: expected [ or . but got: a"),
        ({"selectableFields": [{"jsonPath": ".spec["}]}, "[0].jsonPath", "array notation is not allowed"),
        ({"selectableFields": [{"jsonPath": ".spec."}]}, "[0].jsonPath", "unexpected end of JSON path"),
        ({"selectableFields": [{"jsonPath": ".kind"}]}, "[0].jsonPath", "does not refer to a valid field"),
        ({"selectableFields": [{"jsonPath": ".spec.extra"}]}, "[0].jsonPath", "must point to a field of type string"),
        ({"selectableFields": [{"jsonPath": ".spec.when"}] * 2}, "[1].jsonPath", 'Duplicate value: ".spec.when"'),
    ],
)
def test_columns_and_selectable_fields_are_validated(server: Server, part: Any, field: str, message: str) -> None:
    answer = server.call("POST", "/apis/apiextensions.k8s.io/v1/customresourcedefinitions", changed(**part))
    assert answer.status == 422
    (cause,) = answer.body["details"]["causes"]
    assert cause["field"] == f"spec.{next(iter(part))}{field}"
    assert message in cause["message"]


def changed(**parts: Any) -> dict[str, Any]:
    """Return the definition with other parts of its version, under an unused name."""
    found = copy.deepcopy(DEFINITION)
    found["metadata"]["name"] = "others.example.com"
    found["spec"]["names"] = {"plural": "others", "kind": "Other"}
    version = found["spec"]["versions"][0]
    version["schema"].update({key: parts.pop(key) for key in ("openAPIV3Schema",) if key in parts})
    version.update(parts)
    return found


def test_invalid_columns_are_omitted(server: Server) -> None:
    odd = changed(additionalPrinterColumns=[{"name": "A", "type": "string", "jsonPath": ".spec["}])
    server.make("/apis/apiextensions.k8s.io/v1/customresourcedefinitions", odd)
    path = PATH.replace("crontabs", "others")
    table = server.call("GET", path, accept="application/json;as=Table;v=v1;g=meta.k8s.io").body
    assert [column["name"] for column in table["columnDefinitions"]] == ["Name", "Age"]


def test_deleting_a_definition_deletes_its_objects(server: Server) -> None:
    names = {"plural": "shorts", "kind": "Short"}
    brief = copy.deepcopy(DEFINITION)
    brief["metadata"]["name"] = "shorts.example.com"
    brief["spec"]["names"] = names
    base = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
    path = PATH.replace("crontabs", "shorts")
    server.make(base, brief)
    made = crontab("held") | {"kind": "Short"}
    made["metadata"]["finalizers"] = ["example.com/wait"]
    server.make(path, made)
    terminating = server.call("DELETE", f"{base}/shorts.example.com").body
    assert terminating["metadata"]["deletionTimestamp"]
    assert server.call("POST", path, crontab("late") | {"kind": "Short"}).status == 405
    patch = [{"op": "remove", "path": "/metadata/finalizers"}]
    server.call("PATCH", f"{path}/held", patch, content_type="application/json-patch+json")
    version = terminating["metadata"]["resourceVersion"]
    events = server.call(
        "GET",
        f"{base}?watch=true&timeoutSeconds=2&resourceVersion={version}&fieldSelector=metadata.name%3Dshorts.example.com&limit=1",
    )
    assert events.body[-1]["type"] == "DELETED"
    assert server.call("GET", path).status == 404


def test_with_kubectl(kubectl: Program) -> None:
    kubectl("apply", "-f", "-", stdin=json.dumps(DEFINITION))
    assert "condition met" in kubectl(
        "wait", "--for=condition=established", "crd/crontabs.example.com", "--timeout=5s"
    )
    assert kubectl("apply", "-f", "-", stdin=json.dumps(crontab("my"))) == "crontab.example.com/my created\n"
    assert (
        kubectl("apply", "-f", "-", stdin=json.dumps(crontab("my", image="x")))
        == "crontab.example.com/my configured\n"
    )
    assert 'strict decoding error: unknown field "spec.unheard"' in kubectl(
        "apply", "-f", "-", stdin=json.dumps(crontab("my", unheard=1)), code=1
    )
    assert kubectl("scale", "ct/my", "--replicas=3") == "crontab.example.com/my scaled\n"
    status = '{"status":{"conditions":[{"type":"Ready","status":"True"}]}}'
    kubectl("patch", "ct", "my", "--subresource=status", "--type=merge", "-p", status)
    assert (
        kubectl("wait", "ct/my", "--for=condition=Ready", "--timeout=5s") == "crontab.example.com/my condition met\n"
    )
    header, row = kubectl("get", "ct", "-o", "wide").splitlines()
    assert header.split() == ["NAME", "WHEN", "REPLICAS", "READY", "IMAGE"]
    assert row.split() == ["my", "now", "3", "True", "x"]
    assert "crontab.example.com/my" in kubectl("get", "all")
    assert "The time." in kubectl("explain", "crontab.spec.when")
    assert "Replicas:  3" in kubectl("describe", "ct", "my")
    kubectl("delete", "crd", "crontabs.example.com", "--timeout=10s")


def test_invalid_numbers_of_replicas(server: Server) -> None:
    body = copy.deepcopy(DEFINITION)
    body["metadata"]["name"], body["spec"]["group"] = "crontabs.loose.example.com", "loose.example.com"
    version = body["spec"]["versions"][0]
    version["schema"] = {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}}
    del version["additionalPrinterColumns"]
    server.make("/apis/apiextensions.k8s.io/v1/customresourcedefinitions", body)
    path = "/apis/loose.example.com/v1/namespaces/default/crontabs"
    for number, spec in enumerate(("x", 5, [1])):
        made = {
            "apiVersion": "loose.example.com/v1",
            "kind": "CronTab",
            "metadata": {"name": f"c{number}"},
            "spec": spec,
        }
        server.make(path, made)
        scale = f"{path}/c{number}/scale"
        assert server.call("GET", scale).body["spec"] == {"replicas": 0}
        answer = server.call("PUT", scale, {"metadata": {"name": f"c{number}"}, "spec": {"replicas": 2}})
        assert answer.body["message"] == "value cannot be set because .spec is not a map[string]interface {}"


def test_multiples_of_fractions(server: Server) -> None:
    body = copy.deepcopy(DEFINITION)
    body["metadata"]["name"], body["spec"]["group"] = "crontabs.steps.example.com", "steps.example.com"
    version = body["spec"]["versions"][0]
    number = {"type": "number", "multipleOf": 0.1}
    spec = {"type": "object", "properties": {"a": number, "b": {"type": "integer", "multipleOf": 3}}}
    version["schema"] = {"openAPIV3Schema": {"type": "object", "properties": {"spec": spec}}}
    del version["additionalPrinterColumns"], version["subresources"]
    server.make("/apis/apiextensions.k8s.io/v1/customresourcedefinitions", body)
    path = "/apis/steps.example.com/v1/namespaces/default/crontabs?dryRun=All"
    for field, value, status in (
        ("a", "0.3", 201),
        ("a", "7", 201),
        ("a", "0.35", 422),
        ("a", "1" + "0" * 400, 422),
        ("b", "9", 201),
        ("b", "10", 422),
    ):
        start = '{"apiVersion":"steps.example.com/v1","kind":"CronTab","metadata":{"name":"c"},'
        answer = server.call("POST", path, f'{start}"spec":{{"{field}":{value}}}}}')
        assert answer.status == status, (field, value)
