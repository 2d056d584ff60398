"""Names of images by the grammar of references, and pull policies."""

from __future__ import annotations

import json

from tests.cases.path import IMAGE, LOGIN_SERVER, PULL_SECRET, ThePath, pod
from tests.cases.test_pull_secrets import secret
from tests.instances.images import busybox_layer

HUB = ("docker.io/busybox:1.36", "index.docker.io/library/busybox:1.36", "busybox:1.36")
INVALID = {
    "upper": (f"{LOGIN_SERVER}/App:1", "repository name (App) must be lowercase"),
    "space": (f"{LOGIN_SERVER}/app:a b", "invalid reference format"),
    "digest": (f"{LOGIN_SERVER}/app@sha256:1", "invalid reference format"),
    "id": ("a" * 64, "cannot specify 64-byte hexadecimal strings"),
}


def test_all_names_of_docker_hub_are_one(path: ThePath) -> None:
    """Without a network, the event shows which repository is asked for."""
    path.apply(*(pod(f"hub-{number}", [{"name": "main", "image": image}]) for number, image in enumerate(HUB)))
    for number in range(len(HUB)):
        event = path.events(f"hub-{number}", "Failed")
        assert "from registry docker.io without credentials" in event
        assert "https://registry-1.docker.io/v2/library/busybox/manifests/1.36" in event
    path.kubectl("delete", "pod", *(f"hub-{number}" for number in range(len(HUB))), "--wait=false")


def test_a_name_that_is_not_valid_is_no_pull_that_failed(path: ThePath) -> None:
    for name, (image, _) in INVALID.items():
        path.apply(pod(f"name-{name}", [{"name": "good"}, {"name": "main", "image": image}]))
    for name, (image, reason) in INVALID.items():
        event = path.events(f"name-{name}", "InspectFailed")
        assert event.startswith(f'Failed to apply default image tag "{image}": couldn\'t parse image name')
        assert reason in event
        path.wait(f"pod/name-{name}", "jsonpath={.status.containerStatuses[1].state.waiting.reason}=InvalidImageName")
        status = path.get(f"name-{name}")["status"]
        assert status["phase"] == "Pending"
        assert status["containerStatuses"][1]["state"]["waiting"]["message"] == event
        assert status["containerStatuses"][0]["state"]["waiting"] == {"reason": "ContainerCreating"}
    # The image of a pod can be corrected.
    path.kubectl("set", "image", "pod/name-upper", f"main={IMAGE}")
    path.wait("pod/name-upper", "jsonpath={.status.containerStatuses[1].imageID}")
    path.kubectl("delete", "pod", *(f"name-{name}" for name in INVALID), "--wait=false")


def test_a_digest_wins_over_a_tag(path: ThePath) -> None:
    path.push("digests:1", [busybox_layer()], Cmd=["echo", "first"])
    path.push("digests:1", [busybox_layer()], Cmd=["echo", "second"])
    path.apply(pod("by-tag", [{"name": "main", "image": f"{LOGIN_SERVER}/digests:1"}], restartPolicy="Never"))
    assert path.output("by-tag") == "second\n"
    identity = path.get("by-tag")["status"]["containerStatuses"][0]["imageID"]
    digest = identity.partition("@")[2]
    path.push("digests:1", [busybox_layer()], Cmd=["echo", "third"])
    images = {"both": f"{LOGIN_SERVER}/digests:1@{digest}", "tagged": f"{LOGIN_SERVER}/digests:other@{digest}"}
    path.apply(
        *(
            pod(f"by-{name}", [{"name": "main", "image": image}], restartPolicy="Never")
            for name, image in images.items()
        )
    )
    for name in images:
        assert path.output(f"by-{name}") == "second\n"


def test_a_policy_decides_whether_the_registry_is_asked(path: ThePath) -> None:
    image = path.push("policy:1", [busybox_layer()], Cmd=["echo", "first"])
    policies = ("Always", "IfNotPresent", "Never")

    def pods(part: str) -> list[str]:
        names = {policy: f"policy-{part}-{policy.lower()}" for policy in policies}
        path.apply(
            *(
                pod(name, [{"name": "main", "image": image, "imagePullPolicy": policy}], restartPolicy="Never")
                for policy, name in names.items()
            )
        )
        return list(names.values())

    path.apply(pod("policy-seed", [{"name": "main", "image": image}], restartPolicy="Never"))
    assert path.output("policy-seed") == "first\n"
    path.push("policy:1", [busybox_layer()], Cmd=["echo", "second"])
    # IfNotPresent and Never first: Always moves the tag.
    always, *others = pods("old")
    path.output(always)
    for name in others:
        assert path.events(name, "Pulled") in (
            f'Container image "{image}" already present on machine and can be accessed by the pod',
        )
    assert path.output(always) == "second\n"


def test_never_waits_for_an_image_and_for_the_right_to_use_it(path: ThePath) -> None:
    image = path.push("never:1", [busybox_layer()], Cmd=["echo", "it ran"])
    container = {"name": "main", "image": image, "imagePullPolicy": "Never"}
    username, _, password = path.credentials.partition(":")
    path.apply(secret("stranger", {LOGIN_SERVER: {"username": "stranger", "password": "x"}}))
    path.apply(
        pod("never", [container], restartPolicy="Never"),
        pod("never-stranger", [container], restartPolicy="Never", imagePullSecrets=[{"name": "stranger"}]),
    )
    absent = f'Container image "{image}" is not present with pull policy of Never'
    for name in ("never", "never-stranger"):
        path.wait(f"pod/{name}", "jsonpath={.status.containerStatuses[0].state.waiting.reason}=ErrImageNeverPull")
        waiting = path.get(name)["status"]["containerStatuses"][0]["state"]["waiting"]
        assert waiting == {"reason": "ErrImageNeverPull", "message": absent}
        assert path.events(name, "ErrImageNeverPull") == absent
    path.apply(pod("never-puller", [{"name": "main", "image": image}], restartPolicy="Never"))
    assert path.output("never") == "it ran\n"
    # Another tenant does not get what is here; the right credentials do.
    assert path.get("never-stranger")["status"]["phase"] == "Pending"
    path.apply(secret("stranger", {LOGIN_SERVER: {"username": username, "password": password}}))
    assert path.output("never-stranger") == "it ran\n"


def test_if_not_present_is_for_those_who_could_pull(path: ThePath) -> None:
    path.apply(secret("wrong-password", {LOGIN_SERVER: {"username": "acrdemo2ss", "password": "wrong"}}))
    path.apply(
        pod("present-wrong", [{"name": "main"}], imagePullSecrets=[{"name": "wrong-password"}]),
        pod("present-none", [{"name": "main"}], imagePullSecrets=[]),
    )
    assert "as principal 'acrdemo2ss'" in path.events("present-wrong", "Failed")
    assert "without credentials" in path.events("present-none", "Failed")
    path.kubectl("delete", "pod", "present-wrong", "present-none", "--wait=false")
    assert json.loads(path.kubectl("get", "secret", PULL_SECRET, "-o", "json"))["type"].endswith("dockerconfigjson")
