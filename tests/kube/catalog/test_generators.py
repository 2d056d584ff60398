"""The generators of JSON tables: those that record a cluster make the same files of this API server."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import msgspec
import pytest

from cumulet.common.kubernetes import Client, load_kubeconfig
from tests.kube.conftest import Server

_SCRIPTS = Path(__file__).parents[3] / "scripts"
#: Roles that this project adds to those of Kubernetes.
_ADDED = {
    "csi-azuredisk-controller",
    "cumulet:controllers",
    "cumulet:network",
    "cumulet:oidc-issuer",
    "system:cloud-controller-manager",
    "virtual-kubelet",
}

#: Types with the names of published ones, so that the table has them, and with fields of all forms.
_GO = """package v1

import (
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// A comment with `json:"comment"`.
type Probe struct {
	ProbeHandler `json:",inline" protobuf:"bytes,1,opt,name=handler"`
	// +optional
	Plain string `json:"plain,omitempty" protobuf:"bytes,2,opt,name=plain"`
	Number int32 `json:"number"`
	Named Kind `json:"named"`
	Names []Kind `json:"names,omitempty"`
	Labels map[string]string `json:"labels"`
	Pointer *Kind `json:"pointer,omitempty"`
	Data map[string][]byte `json:"data,omitempty"`
	Amount resource.Quantity `json:"amount"`
	Moment metav1.Time `json:"moment,omitempty"`
	Later metav1.Time `json:"later,omitempty,omitzero"`
	Inner Empty `json:"inner,omitempty"`
	Hidden string `json:"-"`
}

type ProbeHandler struct {
	Action *Empty `json:"action,omitempty"`
	First bool `json:"first"`
}

type Empty struct{}

type Kind string
"""


def _load(name: str) -> Iterator[ModuleType]:
    spec = importlib.util.spec_from_file_location(name, _SCRIPTS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules[name]


@pytest.fixture(scope="module")
def recorder() -> Iterator[ModuleType]:
    yield from _load("record_cluster")


@pytest.fixture(scope="module")
def declarations() -> Iterator[ModuleType]:
    yield from _load("make_declarations")


async def test_roles(recorder: ModuleType, server: Server) -> None:
    async with Client(load_kubeconfig(server.cloud.config.kubeconfig_file("admin")), user_agent="test") as client:
        recorded = [role for role in await recorder.roles(client) if role["metadata"]["name"] not in _ADDED]
    assert recorder.roles_text(recorded) == recorder.ROLES.read_text()


async def test_descriptions_of_columns(recorder: ModuleType, server: Server) -> None:
    async with Client(load_kubeconfig(server.cloud.config.kubeconfig_file("admin")), user_agent="test") as client:
        recorded = await recorder.descriptions(client)
    assert recorder.descriptions_text(recorded) == recorder.DESCRIPTIONS.read_text()


def test_declarations_of_go_types(declarations: ModuleType, tmp_path: Path) -> None:
    files = {
        "api/core/v1/types.go": _GO,
        "apimachinery/pkg/api/resource/quantity.go": "package resource\n\ntype Quantity struct {\n}\n",
        "apimachinery/pkg/apis/meta/v1/time.go": "package v1\n\ntype Time struct {\n}\n",
    }
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    table = msgspec.json.decode(declarations.source(tmp_path))
    assert table == {
        "io.k8s.api.core.v1.Probe": {
            "omitted": ["plain", "names", "data"],
            "written": {
                "first": False, "number": 0, "named": "", "labels": None, "amount": "0", "moment": None, "inner": {},
            },
            "types": {
                "named": "v1.Kind", "names": "[]v1.Kind", "labels": "map[string]string", "pointer": "v1.Kind",
                "data": "map[string][]uint8",
            },
            "embedded": {"action": "ProbeHandler", "first": "ProbeHandler"},
        }
    }  # fmt: skip


def test_every_declared_type_is_one_that_the_generator_reaches(declarations: ModuleType) -> None:
    table = msgspec.json.decode(declarations.TARGET.read_bytes())
    assert table.keys() <= declarations.reached()
