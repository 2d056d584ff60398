"""Nodes of the pool: their size, the settings of the pool, whose credentials come first, and which disk a claim has."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest

from cumulet.common.config import DEFAULT_PORTS, POOL_LIMIT, Address, Config, ConfigError
from cumulet.common.kubernetes.objects import Pod, Volume
from cumulet.common.kubernetes.quantity import decimal
from cumulet.node.checks import check
from cumulet.node.claims import Claims, UnboundError
from cumulet.node.credentials import Credentials, Puller
from cumulet.node.errors import MissingError, UnsupportedError
from cumulet.node.ordinary_fields import ORDINARY_POD_SPEC
from cumulet.node.profile import pool_node
from cumulet.up.pools import Wanted, with_pool

IDENTITY = "/subscriptions/s/resourceGroups/g/providers/Microsoft.ManagedIdentity/userAssignedIdentities/i"
DISK = "/subscriptions/00000000-0000-0000-0000-000000000000/resourceGroups/g/providers/Microsoft.Compute/disks/pvc-1"


@pytest.fixture
def config(tmp_path: Path) -> Config:
    """An installation without a pool."""
    return Config(
        data_dir=tmp_path,
        addresses={room: Address("127.0.0.1", port) for room, port in DEFAULT_PORTS.items()},
        tenant_id="t",
        subscription_id="00000000-0000-0000-0000-000000000000",
    )


class Objects:
    """What an informer has."""

    def __init__(self, *found: Any) -> None:
        self._found = {(item["metadata"].get("namespace", ""), item["metadata"]["name"]): item for item in found}

    def get(self, name: str, namespace: str = "") -> Any:
        """As an informer."""
        return self._found.get((namespace, name))


def pod(**spec: Any) -> Pod:
    """A pod with an image of a login server and one of another registry."""
    containers = [{"name": name, "image": f"{name}.example/a:1"} for name in ("other",)]
    containers.append({"name": "own", "image": "acrdemo2ss.azurecr.io/a:1"})
    made: Any = {
        "metadata": {"name": "p", "namespace": "default", "uid": "u"},
        "spec": {"containers": containers, **spec},
    }
    answer: Pod = made
    return answer


def test_the_pool_grows_and_its_last_nodes_leave(config: Config) -> None:
    three = with_pool(config, Wanted(3))
    assert len({node.address.port for node in three.pool}) == 3
    one = with_pool(three, Wanted(1))
    assert [(node.number, node.leaves) for node in one.pool] == [(0, False), (1, True), (2, True)]
    assert with_pool(one, Wanted()).pool == one.pool
    assert [node.leaves for node in with_pool(one, Wanted(2)).pool] == [False, False, True]
    elsewhere = msgspec.structs.replace(three, kubeconfig=Path("other"))
    assert elsewhere.pool == []
    for refused, wanted in ((config, Wanted(POOL_LIMIT + 1)), (elsewhere, Wanted(1)), (config, Wanted(1, "Huge"))):
        with pytest.raises(ConfigError):
            with_pool(refused, wanted)


def test_a_node_has_the_amounts_of_its_size_without_what_aks_reserves(config: Config) -> None:
    config = with_pool(config, Wanted(1, "Standard_B2s"))
    profile = pool_node(config, config.pool[0])
    has, left = (
        {name: decimal(value) for name, value in amounts.items()}
        for amounts in (profile.capacity, profile.allocatable)
    )
    assert profile.name.endswith("-vmss000000")
    assert has["cpu"] <= 2
    assert has["memory"] <= 4 * 1024**3
    assert has["cpu"] - left["cpu"] in (decimal("60m"), decimal("100m"))
    assert left["memory"] == has["memory"] * 3 / 4 - 100 * 1024**2
    assert profile.labels["node.kubernetes.io/instance-type"] == "Standard_B2s"


def test_the_secrets_of_a_pod_come_before_the_identity_of_the_kubelet() -> None:
    auths = {"acrdemo2ss.azurecr.io": {"username": "u", "password": "p"}}
    content = base64.b64encode(json.dumps({"auths": auths}).encode()).decode()
    secret = {
        "metadata": {"name": "pull", "namespace": "default"},
        "type": "kubernetes.io/dockerconfigjson",
        "data": {".dockerconfigjson": content},
    }
    secrets: Any = Objects(secret)
    credentials = Credentials(secrets, Puller(IDENTITY, "azurecr.io"))
    own = {"server": "acrdemo2ss.azurecr.io", "identity": IDENTITY}
    assert credentials.of(pod()).found == [own], "the other registry gets no token of the identity"
    found = credentials.of(pod(imagePullSecrets=[{"name": "pull"}])).found
    assert found == [{"server": "acrdemo2ss.azurecr.io", "username": "u", "password": "p"}, own]


def _claims(handle: str, annotations: Mapping[str, str], driver: str = "disk.csi.azure.com") -> Claims:
    claim = {
        "metadata": {"name": "c", "namespace": "default", "annotations": annotations},
        "spec": {"volumeName": "v"},
    }
    volume = {"metadata": {"name": "v"}, "spec": {"csi": {"driver": driver, "volumeHandle": handle}}}
    claims: Any = Objects(claim)
    volumes: Any = Objects(volume)
    return Claims(claims, volumes)


def test_the_disk_of_a_claim_and_no_other_path() -> None:
    volume: Volume = {"name": "data", "persistentVolumeClaim": {"claimName": "c", "readOnly": True}}
    bound = {"pv.kubernetes.io/bind-completed": "yes"}
    assert _claims(DISK, bound).disk(pod(), volume) == {"diskURI": DISK, "readOnly": True}
    assert _claims(DISK, bound).disk(pod(), {"name": "e", "emptyDir": {}}) is None
    with pytest.raises(UnboundError):
        _claims(DISK, {}).disk(pod(), volume)
    with pytest.raises(MissingError, match='persistentvolumeclaim "absent" not found'):
        _claims(DISK, bound).disk(pod(), {"name": "x", "persistentVolumeClaim": {"claimName": "absent"}})
    for handle in (f"{DISK}/../../x", f"{DISK}?x", "/etc", DISK.replace("disks", "virtualMachines"), ""):
        with pytest.raises(UnsupportedError):
            _claims(handle, bound).disk(pod(), volume)
    with pytest.raises(UnsupportedError, match="other"):
        _claims(DISK, bound, "other").disk(pod(), volume)


def test_claims_are_for_ordinary_nodes() -> None:
    wants = pod(volumes=[{"name": "data", "persistentVolumeClaim": {"claimName": "c"}}])
    check(wants, table=ORDINARY_POD_SPEC)
    with pytest.raises(UnsupportedError, match="virtual node does not support persistent volumes"):
        check(wants)
