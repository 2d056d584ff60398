"""Claims and volumes: bound to each other, released, lost, and the work of provisioners asked for."""

from __future__ import annotations

from typing import Any

import pytest

from tests.controllers.space import Object, Space

CLAIMS, VOLUMES = "persistentvolumeclaims", "persistentvolumes"


def claim(name: str, size: str = "2Gi", storage_class: str = "", **spec: Any) -> Object:
    """A claim."""
    requests = {"requests": {"storage": size}}
    wanted = {"accessModes": ["ReadWriteOnce"], "resources": requests, "storageClassName": storage_class}
    return {"metadata": {"name": name}, "spec": wanted | spec}


def volume(name: str, size: str, policy: str = "Retain", **spec: Any) -> Object:
    """A volume of no class that exists already."""
    source = {"csi": {"driver": "some.example.com", "volumeHandle": name}}
    has = {"accessModes": ["ReadWriteOnce"], "capacity": {"storage": size}, "persistentVolumeReclaimPolicy": policy}
    return {"metadata": {"name": name}, "spec": has | source | spec}


@pytest.fixture
def mine(space: Space) -> Any:
    """A selector and labels for the volumes of the test, which are the whole cluster's."""
    return {"selector": {"matchLabels": {"of": space.name}}}


def _labelled(space: Space, made: Object) -> Object:
    made["metadata"]["labels"] = {"of": space.name}
    return made


def test_a_claim_gets_the_smallest_volume_that_fits_and_leaves_it_released(space: Space, mine: Any) -> None:
    names = {size: f"{space.name}-{size.lower()}" for size in ("1Gi", "8Gi", "4Gi")}
    for size, name in names.items():
        space.make(VOLUMES, _labelled(space, volume(name, size)))
        space.wait_status(VOLUMES, name, phase="Available")
    space.make(CLAIMS, claim("c", **mine))
    bound = space.wait_status(CLAIMS, "c", phase="Bound")
    assert bound["spec"]["volumeName"] == names["4Gi"]
    assert bound["status"]["capacity"] == {"storage": "4Gi"}
    taken = space.wait_status(VOLUMES, names["4Gi"], phase="Bound")
    assert taken["spec"]["claimRef"]["uid"] == bound["metadata"]["uid"]

    space.make(CLAIMS, claim("too-big", "9Gi", **mine))
    space.wait_event("too-big", "FailedBinding", "no persistent volumes available")
    space.make(VOLUMES, _labelled(space, volume(f"{space.name}-9gi", "9Gi")))
    space.wait_status(CLAIMS, "too-big", phase="Bound")

    space.delete(CLAIMS, "c")
    space.wait_status(VOLUMES, names["4Gi"], phase="Released")
    space.make(CLAIMS, claim("c", **mine))
    again = space.wait_status(CLAIMS, "c", phase="Bound")
    assert again["spec"]["volumeName"] == names["8Gi"], "a released volume has the data of another"
    space.delete(VOLUMES, names["8Gi"])
    assert space.get(VOLUMES, names["8Gi"])["metadata"]["deletionTimestamp"], "it is protected while it is bound"


def test_a_volume_that_is_named_or_reserved(space: Space) -> None:
    one, two = f"{space.name}-one", f"{space.name}-two"
    space.make(VOLUMES, volume(one, "1Gi"))
    space.make(CLAIMS, claim("small", "2Gi", volumeName=one))
    assert space.wait_event("small", "VolumeMismatch") == (
        f'Cannot bind to requested volume "{one}": requested PV is too small'
    )
    reference = {"claimRef": {"namespace": space.name, "name": "second"}}
    reserved = volume(two, "2Gi")
    reserved["spec"] |= reference
    space.make(VOLUMES, reserved)
    space.make(CLAIMS, claim("first", volumeName=two))
    assert space.wait_event("first", "FailedBinding") == f'volume "{two}" already bound to a different claim.'
    space.make(CLAIMS, claim("second"))
    assert space.wait_status(CLAIMS, "second", phase="Bound")["spec"]["volumeName"] == two


def test_nobody_deletes_a_volume_that_no_provisioner_made(space: Space, mine: Any) -> None:
    name = f"{space.name}-deleted"
    space.make(VOLUMES, _labelled(space, volume(name, "2Gi", "Delete")))
    space.make(CLAIMS, claim("c", **mine))
    space.wait_status(CLAIMS, "c", phase="Bound")
    space.delete(CLAIMS, "c")
    space.wait_status(VOLUMES, name, phase="Failed")


def test_a_claim_of_a_class_waits_for_its_pod_and_for_the_provisioner(space: Space) -> None:
    name = f"{space.name}-class"
    made = {"metadata": {"name": name}, "provisioner": "some.example.com"}
    space.make("storageclasses", made | {"volumeBindingMode": "WaitForFirstConsumer"})
    space.make(CLAIMS, claim("c", storage_class=name))
    space.wait_event("c", "WaitForFirstConsumer")
    space.patch(CLAIMS, "c", {"metadata": {"annotations": {"volume.kubernetes.io/selected-node": "node-1"}}})
    space.wait_event("c", "ExternalProvisioning", "Waiting for a volume to be created")
    found = space.wait(CLAIMS, "c")["metadata"]["annotations"]
    assert found["volume.kubernetes.io/storage-provisioner"] == "some.example.com"
    space.make(CLAIMS, claim("absent", storage_class=f"{space.name}-absent"))
    assert "not found" in space.wait_event("absent", "ProvisioningFailed")


def test_the_claim_of_an_ephemeral_volume_goes_with_its_pod(space: Space) -> None:
    template = {"metadata": {"labels": {"a": "b"}}, "spec": claim("")["spec"]}
    volumes = [{"name": "v", "ephemeral": {"volumeClaimTemplate": template}}]
    spec = {"containers": [{"name": "c", "image": "x"}], "volumes": volumes}
    space.make("pods", {"metadata": {"name": "p"}, "spec": spec})
    found = space.wait(CLAIMS, "p-v")
    assert found["metadata"]["labels"] == {"a": "b"}
    assert found["metadata"]["ownerReferences"][0]["kind"] == "Pod"
    space.delete("pods", "p")
    space.wait_gone(CLAIMS, "p-v")
