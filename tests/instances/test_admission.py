"""What a group is refused because of other groups and of the installation: quotas and file shares."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from cumulet.common.arm import ArmError
from cumulet.common.config import Config
from cumulet.common.limits import InstanceLimits
from cumulet.instances.groups.admission import Admission
from cumulet.instances.groups.updates import GroupRequest
from cumulet.instances.model.envelope import Envelope
from cumulet.instances.model.regions import Maximum
from cumulet.instances.sandbox.disks import DiskFolders
from cumulet.instances.sandbox.file_shares import FileShares
from cumulet.instances.store.records import GroupRecord, GroupStatus
from cumulet.instances.validation.request import parse_group
from tests.instances.door import SHARE_KEY, FrontDoor, container, group, is_over, shell

ID = "/subscriptions/s/resourceGroups/g/providers/Microsoft.ContainerInstance/containerGroups/a"


@pytest.mark.parametrize(
    ("limits", "state", "said"),
    [
        (InstanceLimits(container_groups=1), "Running", "quota 'ContainerGroups' exceeded in region 'eastus'. Limit: '1', Usage: '1'"),
        (InstanceLimits(container_groups=1), "Stopped", "Requested: '1'."),
        (InstanceLimits(cores=1), "Running", "quota 'StandardCores' exceeded in region 'eastus'. Limit: '1', Usage: '0.5' Requested: '1'"),
        (InstanceLimits(cores=1), "Stopped", None),
        (InstanceLimits(), "Running", None),
    ],
)  # fmt: skip
def test_quotas_are_those_of_the_region(limits: InstanceLimits, state: str, said: str | None) -> None:
    one = parse_group("a", "eastus", group(container()), Maximum(4, 16))
    two = parse_group("b", "eastus", group(container(), container("more")), Maximum(4, 16))
    record = GroupRecord("u", ID, ID, "eastus", {}, one, GroupStatus(state=state))
    request = GroupRequest(f"{ID}b", "eastus", {}, two, Envelope())
    admission = Admission(limits, FileShares([]), DiskFolders(Path("no disks")))
    admission.check(request._replace(location="westus"), [record])
    if said is None:
        admission.check(request, [record])
    else:
        with pytest.raises(ArmError) as refusal:
            admission.check(request, [record])
        assert refusal.value.code == "ContainerGroupQuotaReached"
        assert said in refusal.value.message


def sharing(script: str, **share: Any) -> dict[str, Any]:
    """A group that mounts the file share."""
    azure = {"shareName": "data", "storageAccountName": "storage", "storageAccountKey": SHARE_KEY, **share}
    mounts = [{"name": "v", "mountPath": "/v"}]
    return group(
        shell(script, volumeMounts=mounts), restartPolicy="Never", volumes=[{"name": "v", "azureFile": azure}]
    )


async def test_a_file_share_outlives_its_groups(door: FrontDoor, shared_config: Config) -> None:
    (share,) = shared_config.file_shares
    (share.folder / "given").write_text("from outside")
    made = await door.call("PUT", "sharing", sharing("cat /v/given; echo kept > /v/made"))
    assert "storageAccountKey" not in made["properties"]["volumes"][0]["azureFile"]
    await door.until("sharing", is_over)
    assert (await door.call("GET", "sharing/containers/web/logs"))["content"] == "from outside"
    await door.call("DELETE", "sharing?gracePeriodSeconds=0")
    assert (share.folder / "made").read_text() == "kept\n"
    await door.call("PUT", "sharing", sharing("touch /v/other", readOnly=True))
    ended = await door.until("sharing", is_over)
    assert ended["properties"]["instanceView"]["state"] == "Failed"
    await door.call("DELETE", "sharing?gracePeriodSeconds=0")
    assert not (share.folder / "other").exists()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"storageAccountKey": "d3Jvbmc="}, "the storage account key for the share storage/data is wrong"),
        ({"storageAccountKey": None}, "is wrong"),
        ({"shareName": "none"}, "the share storage/none does not exist here"),
    ],
)
async def test_a_file_share_needs_its_key(door: FrontDoor, change: dict[str, Any], said: str) -> None:
    answer = await door.call("PUT", "sharing-not", sharing("true", **change), status=400)
    assert answer["error"]["code"] == "InaccessibleAzureFileShare"
    assert said in answer["error"]["message"]


async def test_a_file_share_that_others_reach_is_refused(door: FrontDoor, shared_config: Config) -> None:
    (share,) = shared_config.file_shares
    share.folder.chmod(0o755)
    try:
        answer = await door.call("PUT", "sharing-not", sharing("true"), status=400)
        assert "other users can reach" in answer["error"]["message"]
    finally:
        share.folder.chmod(0o700)
