"""Volumes that container instances have themselves, as the virtual node sends them."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import pytest

from cumulet.node.checks import check
from cumulet.node.errors import MountError, UnsupportedError
from cumulet.node.pods import Pods
from tests.node.test_strict_aci import pod, strict_node


@pytest.fixture
def node(tmp_path: Path) -> Pods:
    """A strict node, with secrets of a storage account."""
    made = strict_node(tmp_path)
    data = {"azurestorageaccountname": "account", "azurestorageaccountkey": "a2V5\n"}
    for name, keys in (("storage", data), ("half", {"azurestorageaccountname": "account"})):
        encoded = {key: base64.b64encode(value.encode()).decode() for key, value in keys.items()}
        metadata = {"name": name, "namespace": "default", "uid": name, "resourceVersion": "1"}
        secret: Any = {"metadata": metadata, "data": encoded}
        made.watched.secrets.items["default", name] = secret
    return made


SHARE = {"shareName": "share", "storageAccountName": "account", "storageAccountKey": "a2V5"}


def csi(**attributes: str) -> dict[str, Any]:
    """An inline volume of the driver of Azure Files."""
    return {"name": "v", "csi": {"driver": "file.csi.azure.com", "volumeAttributes": attributes}}


@pytest.mark.parametrize(
    ("volume", "sent"),
    [
        (
            {"name": "v", "azureFile": {"shareName": "share", "secretName": "storage", "readOnly": True}},
            {"name": "v", "azureFile": {**SHARE, "readOnly": True}},
        ),
        (
            csi(shareName="share", secretName="storage"),
            {"name": "v", "azureFile": {**SHARE, "readOnly": False}},
        ),
        (
            {"name": "v", "gitRepo": {"repository": "https://example.com/r.git", "revision": "1", "directory": "."}},
            {"name": "v", "gitRepo": {"repository": "https://example.com/r.git", "revision": "1", "directory": "."}},
        ),
    ],
)
async def test_they_are_translated(node: Pods, volume: dict[str, Any], sent: dict[str, Any]) -> None:
    asked = pod({}, volumes=[volume])
    check(asked)
    check(asked, strict=True)
    assert (await node.bodies.of(asked, None))["properties"]["volumes"] == [sent]


@pytest.mark.parametrize(
    ("volume", "message"),
    [
        (csi(shareName="share", secretName="absent"), 'secret "absent" not found'),
        (csi(shareName="share", secretName="half"), 'secret "half" has no azurestorageaccountkey'),
    ],
)
async def test_a_secret_that_is_missing_holds_the_pod_back(node: Pods, volume: dict[str, Any], message: str) -> None:
    with pytest.raises(MountError) as caught:
        await node.bodies.of(pod({}, volumes=[volume]), None)
    assert str(caught.value) == f'MountVolume.SetUp failed for volume "v" : {message}'


async def test_a_share_has_a_name(node: Pods) -> None:
    with pytest.raises(UnsupportedError, match="share name for AzureFile CSI driver v cannot be empty or nil"):
        await node.bodies.of(pod({}, volumes=[csi(secretName="storage")]), None)
