"""Empty fields and the names of types, as the declarations of the Go types have them."""

from __future__ import annotations

import uuid

from tests.kube.conftest import Server

_POLICIES = "/apis/admissionregistration.k8s.io/v1/mutatingadmissionpolicies"
_CLASSES = "/apis/scheduling.k8s.io/v1/priorityclasses"


def test_empty_fields_of_mutating_policies_are_omitted(server: Server) -> None:
    name = "empty-fields"
    spec = {
        "matchConstraints": {
            "resourceRules": [
                {"apiGroups": [""], "apiVersions": ["v1"], "resources": ["secrets"], "operations": ["CREATE"]}
            ]
        },
        "matchConditions": [],
        "variables": [],
        "reinvocationPolicy": "Never",
        "mutations": [{"patchType": "JSONPatch", "jsonPatch": {"expression": "[]"}}],
    }
    made = server.make(_POLICIES, {"metadata": {"name": name}, "spec": spec})
    assert not made["spec"].keys() & {"matchConditions", "variables"}
    server.call("DELETE", f"{_POLICIES}/{name}")


def test_a_message_names_the_package_of_a_type(server: Server) -> None:
    body = {"metadata": {"name": "wrong-type"}, "value": 1, "preemptionPolicy": 5}
    answer = server.call("POST", _CLASSES, body)
    assert answer.status == 400
    assert "of type v1.PreemptionPolicy" in answer.body["message"]


def test_a_field_whose_feature_gate_is_off_is_dropped_with_a_warning(server: Server) -> None:
    """Also with strict validation and in a template, and each time."""
    pods = server.namespace(f"a{uuid.uuid4().hex[:8]}") + "/pods"
    container = {
        "name": "c",
        "image": "x",
        "lifecycle": {"stopSignal": "SIGINT", "preStop": {"sleep": {"seconds": 1}}},
    }
    spec = {"containers": [container], "os": {"name": "linux"}}
    for name in ("one", "two"):
        answer = server.call("POST", f"{pods}?fieldValidation=Strict", {"metadata": {"name": name}, "spec": spec})
        assert answer.status == 201
        assert answer.body["spec"]["containers"][0]["lifecycle"] == {"preStop": {"sleep": {"seconds": 1}}}
        warning = (
            "spec.containers[0].lifecycle.stopSignal: ignored, because the feature gate ContainerStopSignals is off"
        )
        assert warning in answer.headers.get("Warning", "")
