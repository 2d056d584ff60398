"""The tables of supported fields: complete by the published schemas, in the documentation, and what the checks go by."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from cumulet.balancer.service_fields import SERVICE_SPEC
from cumulet.balancer.service_fields import refused_fields as refused_of_service
from cumulet.common.kubernetes.objects import Pod, Service
from cumulet.common.kubernetes.support import Entry, Kind
from cumulet.kube.schema.definitions import Definition, Field, named
from cumulet.node.checks import check, refused_fields
from cumulet.node.errors import UnsupportedError
from cumulet.node.pod_fields import POD_SPEC
from cumulet.node.status_fields import POD_STATUS

ROOT = Path(__file__).parents[2]
ROOTS = pytest.mark.parametrize("root", [POD_SPEC, POD_STATUS, SERVICE_SPEC], ids=["pod", "status", "service"])


class Place(NamedTuple):
    """An entry of a table: its path in an object, with `[0]` after a list, and its field in the schema."""

    path: str
    entry: Entry
    field: Field


def _definition(kind: Kind) -> Definition:
    found = named(f"io.k8s.api.core.v1.{kind.schema}")
    assert found is not None, f"the schemas have no {kind.schema}"
    return found


def _places(kind: Kind, path: str) -> Iterator[Place]:
    fields = _definition(kind).fields
    assert kind.fields.keys() == fields.keys(), f"{kind.title}: {kind.fields.keys() ^ fields.keys()}"
    for name, entry in kind.fields.items():
        field = fields[name]
        where = f"{path}.{name}"
        yield Place(where, entry, field)
        if entry.kind is not None:
            assert field.ref.endswith(f".{entry.kind.schema}"), f"{where} is a {field.ref}"
            yield from _places(entry.kind, f"{where}[0]" if field.type == "array" else where)


@ROOTS
def test_every_field_of_the_schemas_is_in_one_column(root: Kind) -> None:
    for place in _places(root, "spec"):
        entry = place.entry
        if place.field.item is not None and place.field.type != "map" and entry.column == "honoured":
            assert entry.kind is not None, f"{place.path} has fields of its own, which are in no column"
        assert entry.note or entry.column == "honoured" or entry.instead, f"{place.path}: say who reads it"
        assert bool(entry.instead) == (entry.only is not None or entry.column == "refused"), place.path


def test_the_page_is_up_to_date() -> None:
    script = ROOT / "scripts" / "make_pod_fields.py"
    assert subprocess.run([sys.executable, script, "--check"], check=False).returncode == 0, "run the script"


def _value(field: Field) -> Any:
    """Return a value of a field's type, other than the one that equals an absent field."""
    if field.type == "array":
        return [{"name": "some"} if field.ref else "some"]
    return {"string": "some", "integer": 7, "boolean": True, "any": 7}.get(field.type, {"name": "some"})


def _object(path: str, value: Any) -> Any:
    """Return an object that has nothing but a value at that path."""
    for part in reversed(path.split(".")):
        name, _, number = part.partition("[")
        value = {name: [value] if number else value}
    return value


def _refused(root: Kind) -> Iterator[tuple[str, str, Any]]:
    """Yield each refusal of a table: its path, the object's part of it and what to do instead."""
    for path, entry, field in _places(root, "spec"):
        if path.startswith("spec.ephemeralContainers"):
            continue
        if entry.column == "refused":
            yield path, entry.instead, _object(path, _value(field))
        elif entry.only is not None:
            yield path, entry.instead, _object(path, True if field.type == "boolean" else _another(field))


def _another(field: Field) -> Any:
    return {"array": ["another"], "map": {"another": "1"}}.get(field.type, "another")


@pytest.mark.parametrize(
    ("path", "instead", "pod"), [*_refused(POD_SPEC)], ids=[case[0] for case in _refused(POD_SPEC)]
)
def test_a_refused_field_is_named_by_its_path_with_what_to_do(path: str, instead: str, pod: Pod) -> None:
    (refusal,) = refused_fields(pod)
    assert refusal.path.startswith(path)
    with pytest.raises(UnsupportedError) as caught:
        check(pod)
    assert str(caught.value).startswith(path)
    assert str(caught.value).endswith(f" is not supported: {instead}")


@pytest.mark.parametrize(("path", "instead", "service"), [*_refused(SERVICE_SPEC)])
def test_a_refused_field_of_a_service_is_named(path: str, instead: str, service: Service) -> None:
    service["spec"]["type"] = "LoadBalancer"
    (refusal,) = refused_of_service(service)
    assert refusal.path.startswith(path)
    assert refusal.instead == instead
    service["spec"]["loadBalancerClass"] = "another"
    assert [*refused_of_service(service)] == []


def test_several_refusals_are_in_one_message_of_bounded_length() -> None:
    volume: Any = {"name": "data", "hostPath": {"path": "/"}}
    pod: Pod = {"spec": {"hostNetwork": True, "volumes": [volume]}}
    with pytest.raises(
        UnsupportedError, match=r"^spec.hostNetwork is .*; spec\.volumes\[0\]\.hostPath is not supported"
    ):
        check(pod)
    pod = {"spec": {"volumes": [volume] * 30}}
    with pytest.raises(UnsupportedError) as caught:
        check(pod)
    assert "nor are spec.volumes[1].hostPath, spec.volumes[2]" in str(caught.value)


@pytest.mark.parametrize(
    "spec",
    [
        {"hostNetwork": False, "hostPID": False, "hostUsers": None, "shareProcessNamespace": False},
        {"containers": [{"name": "c", "stdin": False, "ports": [{"containerPort": 1, "hostPort": 0}]}]},
        {"securityContext": {"sysctls": [], "seLinuxOptions": {}}, "volumes": []},
        {"securityContext": {}, "volumes": [{"name": "v", "emptyDir": {"medium": ""}}]},
    ],
)
def test_a_value_that_equals_an_absent_field_is_not_refused(spec: Any) -> None:
    assert refused_fields({"spec": spec}) == []


def test_a_field_that_no_schema_has_is_refused() -> None:
    pod: Any = {"spec": {"containers": [{"name": "c", "livenessProbe": {"quantum": {}}}]}}
    (refusal,) = refused_fields(pod)
    assert refusal.path == "spec.containers[0].livenessProbe.quantum"
