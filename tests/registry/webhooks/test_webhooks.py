"""Webhooks: their events, signatures, retries, and delivery after a restart."""

from __future__ import annotations

import hmac
import json
from collections.abc import Iterator
from typing import Any

import pytest
from azure.mgmt.containerregistry import ContainerRegistryManagementClient

from tests.cloud import PEERS, Cloud
from tests.microsoft import management
from tests.registry.login_server import OCI_MANIFEST, AcrRegistry
from tests.registry.receiver import Delivery, Receiver, receiving

GROUP = "group"


@pytest.fixture(scope="module")
def registry(cloud: Cloud) -> AcrRegistry:
    return AcrRegistry(cloud, "acrhooks", adminUserEnabled=True)


@pytest.fixture(scope="module")
def client(cloud: Cloud) -> Iterator[ContainerRegistryManagementClient]:
    with management(ContainerRegistryManagementClient, cloud) as made:
        yield made


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as made:
        yield made


@pytest.fixture
def hook(registry: AcrRegistry, receiver: Receiver) -> Iterator[str]:
    """The path of a webhook for all events, deleted at the end of the test."""
    yield make(registry, "everything", receiver)
    assert registry.arm("DELETE", "/webhooks/everything").status == 200


def make(registry: AcrRegistry, name: str, receiver: Receiver, **properties: object) -> str:
    body = {"serviceUri": receiver.url, "actions": ["push", "delete"], **properties}
    answer = registry.arm("PUT", f"/webhooks/{name}", {"location": "eastus", "properties": body})
    assert answer.status == 201, answer.body
    return f"/webhooks/{name}"


def content(delivery: Delivery) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(delivery.body)
    return found


def test_a_push_and_a_deletion(registry: AcrRegistry, receiver: Receiver, hook: str) -> None:
    digest = registry.push("events/app", "v1")
    event = content(receiver.take())
    target = event["target"]
    assert (event["action"], target["repository"], target["tag"], target["digest"]) == (
        "push",
        "events/app",
        "v1",
        digest,
    )
    assert target["mediaType"] == OCI_MANIFEST
    assert target["size"] == target["length"] > 300
    assert (event["request"]["host"], event["request"]["method"]) == (registry.server, "PUT")
    assert event["actor"] == {"name": "acrhooks"}
    assert event["timestamp"].startswith("20")
    token = registry.admin_token("repository:events/app:*")
    assert registry.call("DELETE", f"/v2/events/app/manifests/{digest}", token=token).status == 202
    event = content(receiver.take())
    assert (event["action"], event["target"]) == ("delete", {"digest": digest, "repository": "events/app"})
    registry.push("events/app", "v2")
    receiver.take()
    assert registry.call("DELETE", "/acr/v1/events/app", token=token).status == 202
    assert content(receiver.take())["action"] == "delete"


def test_the_signature_and_the_headers(registry: AcrRegistry, receiver: Receiver) -> None:
    hook = make(registry, "signed", receiver, customHeaders={"Authorization": "Bearer custom", "X-More": "1"})
    shown = registry.arm("GET", hook)
    assert "custom" not in json.dumps(shown.body)
    assert receiver.url not in json.dumps(shown.body)
    config = registry.arm("POST", f"{hook}/getCallbackConfig").body
    assert config["serviceUri"] == receiver.url
    assert config["customHeaders"] == {"Authorization": "Bearer custom", "X-More": "1"}
    registry.arm("POST", f"{hook}/ping")
    delivery = receiver.take()
    assert content(delivery)["action"] == "ping"
    expected = hmac.new(config["signingKey"].encode(), delivery.body, "sha256").hexdigest()
    assert delivery.headers["X-Hub-Signature-256"] == f"sha256={expected}"
    assert (delivery.headers["Authorization"], delivery.headers["X-More"]) == ("Bearer custom", "1")
    assert delivery.headers["Content-Type"].startswith("application/json")
    assert "Bearer custom" not in registry.cloud.log("registry")
    files = registry.cloud.config.room_dir("registry").glob("registry.db*")
    assert b"Bearer custom" not in b"".join(path.read_bytes() for path in files)
    registry.arm("DELETE", hook)


def test_with_microsofts_client(
    registry: AcrRegistry, client: ContainerRegistryManagementClient, receiver: Receiver
) -> None:
    made = client.webhooks.begin_create(
        GROUP,
        registry.name,
        "sdkhook",
        {
            "location": "eastus",
            "tags": {"a": "b"},
            "properties": {"serviceUri": receiver.url, "actions": ["push"], "status": "enabled", "scope": "sdk:*"},
        },
    ).result()
    assert (made.name, made.status, made.scope, made.actions, made.tags) == (
        "sdkhook", "enabled", "sdk:*", ["push"], {"a": "b"},
    )  # fmt: skip
    assert client.webhooks.get_callback_config(GROUP, registry.name, "sdkhook").service_uri == receiver.url
    assert client.webhooks.ping(GROUP, registry.name, "sdkhook").id == content(receiver.take())["id"]
    changed = client.webhooks.begin_update(
        GROUP, registry.name, "sdkhook", {"tags": {"c": "d"}, "properties": {"actions": ["push", "delete"]}}
    ).result()
    assert (changed.tags, changed.actions, changed.scope) == ({"c": "d"}, ["push", "delete"], "sdk:*")
    registry.push("sdk", "v1")
    id_ = content(receiver.take())["id"]
    while not (events := list(client.webhooks.list_events(GROUP, registry.name, "sdkhook")))[
        0
    ].event_response_message:
        pass
    event = events[0]
    assert event.id == id_
    sent, response = event.as_dict()["eventRequestMessage"], event.as_dict()["eventResponseMessage"]
    assert sent["content"]["target"]["repository"] == "sdk"
    assert (response["statusCode"], response["content"]) == ("200", "taken")
    assert [hook.name for hook in client.webhooks.list(GROUP, registry.name)] == ["sdkhook"]
    client.webhooks.begin_delete(GROUP, registry.name, "sdkhook").result()
    assert registry.arm("GET", "/webhooks/sdkhook").code == "ResourceNotFound"


@pytest.mark.parametrize(
    ("properties", "pushed", "expected"),
    [
        ({"scope": "a/one:v1"}, ["a/one:v1", "a/one:v2", "b:v1"], ["a/one:v1"]),
        ({"scope": "a/one:*"}, ["a/one:v1", "b:v1", "a/one:v2"], ["a/one:v1", "a/one:v2"]),
        ({"scope": "a/*:v1"}, ["a/one:v1", "a/two:v1", "a/two:v2"], ["a/one:v1", "a/two:v1"]),
        ({"scope": "b"}, ["b:v1", "b:latest"], ["b:latest"]),
        ({"scope": "a*"}, ["b:v1", "a/one:x"], ["a/one:x"]),
        ({"actions": ["delete"]}, ["b:v1"], []),
        ({"status": "disabled"}, ["b:v1"], []),
    ],
)
def test_scopes_and_actions_of_webhooks(
    registry: AcrRegistry, receiver: Receiver, properties: dict[str, object], pushed: list[str], expected: list[str]
) -> None:
    hook = make(registry, "picky", receiver, **properties)
    last = make(registry, "witness", receiver, actions=["push"], scope="last:*")
    for image in pushed:
        repository, _, tag = image.partition(":")
        registry.push(repository, tag)
    seen: list[str] = []
    while len(seen) < len(expected):
        target = content(receiver.take())["target"]
        seen.append(f"{target['repository']}:{target['tag']}")
    assert sorted(seen) == sorted(expected)
    # Earlier events were decided before this one arrives.
    registry.push("last", "v1")
    assert content(receiver.take())["target"]["repository"] == "last"
    assert receiver.is_empty
    for path in (hook, last):
        registry.arm("DELETE", path)


def test_a_failure_is_retried(registry: AcrRegistry, receiver: Receiver, hook: str) -> None:
    receiver.statuses.put(503)
    registry.push("again", "v1")
    first, second = receiver.take(), receiver.take()
    assert first.body == second.body
    assert first.headers["X-Hub-Signature-256"] == second.headers["X-Hub-Signature-256"]


def test_an_event_survives_a_restart(registry: AcrRegistry, receiver: Receiver, hook: str) -> None:
    receiver.statuses.put(500)
    digest = registry.push("outlives", "v1")
    receiver.take()
    registry.cloud.kill("registry")
    assert content(receiver.take())["target"]["digest"] == digest


def test_an_unreachable_receiver_is_recorded(registry: AcrRegistry, cloud: Cloud) -> None:
    body = {"serviceUri": f"http://{PEERS}:9/", "actions": ["push"]}
    assert registry.arm("PUT", "/webhooks/nobody", {"properties": body}).status == 201
    registry.arm("POST", "/webhooks/nobody/ping")
    while not (event := registry.arm("POST", "/webhooks/nobody/listEvents").body["value"][0])["eventResponseMessage"]:
        pass
    assert event["eventResponseMessage"]["statusCode"] == "0"
    assert PEERS in event["eventResponseMessage"]["reasonPhrase"]
    reader = cloud.principal("hook reader", Reader=registry.id)
    for verb in ("getCallbackConfig", "ping", "listEvents"):
        assert registry.arm("POST", f"/webhooks/nobody/{verb}", as_=reader).code == "AuthorizationFailed"
    registry.arm("DELETE", "/webhooks/nobody")


@pytest.mark.parametrize(
    ("name", "properties", "code"),
    [
        ("bad-name", {}, "InvalidName"),
        ("badhook", {"serviceUri": "file:///etc/passwd"}, "InvalidWebhook"),
        ("badhook", {"serviceUri": "http://"}, "InvalidWebhook"),
        ("badhook", {"serviceUri": "http://[x"}, "InvalidWebhook"),
        ("badhook", {"serviceUri": "http://a b/"}, "InvalidWebhook"),
        ("badhook", {"serviceUri": 7}, "InvalidRequestContent"),
        ("badhook", {"serviceUri": None}, "InvalidWebhook"),
        ("badhook", {"actions": []}, "InvalidWebhook"),
        ("badhook", {"actions": ["pull"]}, "InvalidWebhook"),
        ("badhook", {"actions": ["push", "quarantine"]}, "InvalidWebhook"),
        ("badhook", {"status": "asleep"}, "InvalidWebhook"),
        ("badhook", {"scope": "a b"}, "InvalidWebhook"),
        ("badhook", {"customHeaders": {"Host": "x"}}, "InvalidWebhook"),
        ("badhook", {"customHeaders": {"X": "a\r\nY: b"}}, "InvalidWebhook"),
        ("badhook", {"customHeaders": {"X Y": "a"}}, "InvalidWebhook"),
        ("badhook", {"customHeaders": {"X": 1}}, "InvalidRequestContent"),
    ],
)
def test_bad_webhooks(registry: AcrRegistry, name: str, properties: dict[str, object], code: str) -> None:
    body = {"serviceUri": "http://127.0.0.1/", "actions": ["push"], **properties}
    answer = registry.arm("PUT", f"/webhooks/{name}", {"location": "eastus", "properties": body})
    assert (answer.status, answer.code) == (400, code)
