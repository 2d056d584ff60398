"""Pull secrets as a kubelet reads them: patterns, paths, several for one registry, and those that are of no use."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from typing import Any

import pytest

from tests.cases.path import IMAGE, LOGIN_SERVER, ThePath, pod
from tests.instances.images import busybox_layer

SLEEP = ["sleep", "3600"]


def secret(name: str, auths: Any, kind: str = "kubernetes.io/dockerconfigjson") -> dict[str, Any]:
    """A pull secret with these `auths`."""
    key = ".dockercfg" if kind.endswith("/dockercfg") else ".dockerconfigjson"
    content = auths if key == ".dockercfg" else {"auths": auths, "credsStore": "desktop"}
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": name},
        "type": kind,
        "stringData": {key: content if isinstance(content, str) else json.dumps(content)},
    }


def user(path: ThePath) -> dict[str, str]:
    """An entry with the registry's admin user."""
    username, _, password = path.credentials.partition(":")
    return {"username": username, "password": password}


def unpadded(path: ThePath) -> str:
    """The same as `auth`, without padding; its bytes are chosen so that some is needed."""
    text = path.credentials.encode()
    return base64.urlsafe_b64encode(text).decode().rstrip("=")


def with_secrets(name: str, *secrets: str, image: str = IMAGE, **spec: Any) -> dict[str, Any]:
    """A pod that sleeps, with these pull secrets, and whose image is asked for each time."""
    container = {"name": "main", "image": image, "command": SLEEP, "imagePullPolicy": "Always"}
    return pod(name, [container], imagePullSecrets=[{"name": item} for item in secrets], **spec)


GOOD: dict[str, Callable[[ThePath], Any]] = {
    "pattern": lambda path: {"*.azurecr.io": user(path)},
    "port": lambda path: {LOGIN_SERVER: user(path), "my_registry:5000": {"username": "a", "password": "b"}},
    "empty": lambda path: {"": {"username": "a", "password": "b"}, LOGIN_SERVER: user(path)},
    "odd": lambda path: {
        "[": "text",
        "other.example": 7,
        "x\ny": {"auth": "!"},
        f"https://{LOGIN_SERVER}/v2/": user(path),
    },
    "unpadded": lambda path: {LOGIN_SERVER: {"auth": unpadded(path), "username": "other", "password": "other"}},
    "capitals": lambda path: {
        f"https://{LOGIN_SERVER.upper()}": {key.title(): text for key, text in user(path).items()}
    },
}


def test_servers_of_every_form_are_matched_and_foreign_ones_left_alone(path: ThePath) -> None:
    secrets = [secret(f"good-{name}", auths(path)) for name, auths in GOOD.items()]
    secrets.append(secret("good-legacy", {LOGIN_SERVER: user(path)}, "kubernetes.io/dockercfg"))
    names = [item["metadata"]["name"] for item in secrets]
    path.apply(*secrets, *(with_secrets(name, name) for name in names))
    path.kubectl("wait", "pod", *names, "--for=condition=Ready", "--timeout=60s")
    for name in names:
        assert path.get(name)["status"]["phase"] == "Running"
    path.kubectl("delete", "pod", *names, "--wait=false")


USELESS = {
    "opaque": (secret("opaque", {}, "Opaque"), "its type Opaque is neither kubernetes.io/dockerconfigjson nor"),
    "text": (secret("text", {LOGIN_SERVER: "text"}), f"is not used for {LOGIN_SERVER}: its entry is not an object"),
    "number": (secret("number", {LOGIN_SERVER: {"username": 1}}), "its username is not a string"),
    "no-user": (secret("no-user", {LOGIN_SERVER: {}}), "it has no user name and password for this server"),
    "no-base64": (secret("no-base64", {LOGIN_SERVER: {"auth": "?"}}), "its auth is not base64 of a user name"),
    "line-feed": (
        secret("line-feed", {LOGIN_SERVER: {"username": "a", "password": "b\n"}}),
        "its password has a control character, such as a line feed at the end",
    ),
}


def test_a_secret_of_no_use_is_told_and_a_mended_one_is_used(path: ThePath) -> None:
    pods = [with_secrets(f"useless-{name}", name) for name in USELESS]
    path.apply(*(item for item, _ in USELESS.values()), *pods)
    for name, (_, reason) in USELESS.items():
        event = path.events(f"useless-{name}", "FailedToRetrieveImagePullSecret")
        assert f'The image pull secret "{name}" ' in event
        assert reason in event
        failure = path.events(f"useless-{name}", "Failed")
        assert "without credentials: " in failure
        assert f"create a pull secret for {LOGIN_SERVER} and name it in imagePullSecrets" in failure
    # The type of a secret cannot change; its content can, and a secret can be made anew.
    path.kubectl("delete", "secret", "opaque")
    path.apply(*(secret(name, {LOGIN_SERVER: user(path)}) for name in USELESS))
    names = [f"useless-{name}" for name in USELESS]
    path.kubectl("wait", "pod", *names, "--for=condition=Ready", "--timeout=60s")
    path.kubectl("delete", "pod", *names, "--wait=false")


def test_the_status_of_a_pod_goes_on_when_its_secret_is_spoiled(path: ThePath) -> None:
    path.apply(secret("spoiled", {LOGIN_SERVER: user(path)}))
    spec = {"imagePullSecrets": [{"name": "acrdemo2ss-secret"}, {"name": "spoiled"}], "restartPolicy": "Never"}
    path.apply(
        pod(
            "spoiled",
            [{"name": "main", "command": ["sh", "-c", "sleep 3; exit 3"]}],
            **spec,
        )
    )
    path.wait("pod/spoiled", "condition=Ready")
    path.apply(secret("spoiled", {LOGIN_SERVER: "text"}))
    path.wait_phase("spoiled", "Failed")


@pytest.fixture(scope="module")
def teams(path: ThePath) -> dict[str, dict[str, str]]:
    """Two repositories, and an entry of a token that may pull one of them, by team."""
    users = {}
    for team in ("a", "b"):
        path.push(f"team-{team}/app:1", [busybox_layer()])
        made = path.installation.cumulet(
            *("registry", "token", "acrdemo2ss", f"tok-{team}", "--allow", f"team-{team}/app:content/read")
        )
        users[team] = {"username": f"tok-{team}", "password": made["passwords"][0]["value"]}
    return users


@pytest.mark.parametrize("kind", ["path", "host"])
def test_secrets_for_one_registry_are_tried_in_turn(
    path: ThePath, teams: dict[str, dict[str, str]], kind: str
) -> None:
    servers = {team: f"{LOGIN_SERVER}/team-{team}" if kind == "path" else LOGIN_SERVER for team in teams}
    secrets = [secret(f"{kind}-{team}", {servers[team]: entry}) for team, entry in teams.items()]
    containers = [{"name": team, "image": f"{LOGIN_SERVER}/team-{team}/app:1", "command": SLEEP} for team in teams]
    names = [{"name": f"{kind}-{team}"} for team in teams]
    path.apply(*secrets, pod(f"two-{kind}", containers, imagePullSecrets=names))
    path.wait(f"pod/two-{kind}", "condition=Ready")
    path.kubectl("delete", "pod", f"two-{kind}", "--wait=false")


def test_every_refused_principal_is_named(path: ThePath, teams: dict[str, dict[str, str]]) -> None:
    old = {**user(path), "password": "old"}
    path.apply(secret("old", {LOGIN_SERVER: old}), secret("denied", {LOGIN_SERVER: teams["a"]}))
    path.apply(with_secrets("old-first", "old", "acrdemo2ss-secret"), with_secrets("both-refused", "old", "denied"))
    path.wait("pod/old-first", "condition=Ready")
    event = path.events("both-refused", "Failed")
    assert f"as principal '{old['username']}': " in event
    assert f"as principal '{teams['a']['username']}': denied: " in event
    assert "Fix: assign the role AcrPull" in event
    path.kubectl("delete", "pod", "old-first", "both-refused", "--wait=false")


def test_the_secrets_of_a_service_account_are_used(path: ThePath) -> None:
    account = {
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": {"name": "puller"},
        "imagePullSecrets": [{"name": "acrdemo2ss-secret"}],
    }
    path.apply(account)
    path.apply(with_secrets("of-account", serviceAccountName="puller"))
    path.wait("pod/of-account", "condition=Ready")
    path.kubectl("delete", "pod", "of-account", "--wait=false")
