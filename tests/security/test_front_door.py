"""The front door's providers answer the front door alone, however a path is spelled."""

from __future__ import annotations

from typing import Any

import aiohttp
import pytest
from aiohttp import web

from cumulet.common.arm import arm_errors, behind_the_front_door
from cumulet.common.entra import Credential
from tests.cloud import Cloud

#: Characters that Python's patterns without case, or its `lower`, take for an ASCII letter, and other ways of writing one.
SPELLINGS = {
    "long s": ("s", "%C5%BF"),
    "dotless i": ("i", "%C4%B1"),
    "I with a dot": ("I", "%C4%B0"),
    "Kelvin sign": ("K", "%E2%84%AA"),
    "fullwidth": ("s", "%EF%BD%93"),
}


def _spelled(path: str, letter: str, other: str) -> list[str]:
    """A path with one letter of it at a time written in another way."""
    places = [at for at, char in enumerate(path) if char.lower() == letter.lower()]
    return [f"{path[:at]}{other}{path[at + 1 :]}" for at in places]


@pytest.mark.parametrize(("letter", "other"), SPELLINGS.values(), ids=SPELLINGS.keys())
def test_a_spelling_opens_no_provider(cloud: Cloud, registry: str, letter: str, other: str) -> None:
    identities = f"{registry.partition('/providers/')[0]}/providers/Microsoft.ManagedIdentity/userAssignedIdentities"
    assignments = f"{registry}/providers/Microsoft.Authorization/roleAssignments"
    for room, method, path in (
        ("registry", "GET", registry),
        ("registry", "PATCH", registry),
        ("registry", "POST", f"{registry}/listCredentials"),
        ("registry", "POST", f"{registry}/regenerateCredential"),
        ("identity", "GET", identities),
        ("identity", "PUT", f"{identities}/stranger"),
        ("identity", "GET", assignments),
    ):
        for spelled in (path, *_spelled(path, letter, other)):
            body = {"location": "eastus", "properties": {"adminUserEnabled": True}} if method != "GET" else None
            answer = cloud.call(room, method, spelled, body=body)  # type: ignore[arg-type]
            assert answer.status in (401, 403), f"{method} {spelled} of {room}: {answer.status}"
    assert cloud.arm("GET", registry).body["properties"]["adminUserEnabled"] is False


@pytest.mark.parametrize(
    "change",
    [
        lambda path: f"/{path}",
        lambda path: path.replace("/", "//"),
        lambda path: f"/.{path}",
        lambda path: f"/x/..{path}",
        lambda path: path.replace("subscriptions", "%73ubscriptions"),
        lambda path: path.replace("subscriptions", "subscriptions;x=1"),
        lambda path: path.replace("/subscriptions", "%2Fsubscriptions"),
        lambda path: f"/v2/..{path}",
        lambda path: f"/healthz/..{path}",
        lambda path: f"/metrics{path}",
        lambda path: f"{path}%00",
        lambda path: f"{path}%0d%0a",
        lambda path: path.upper(),
    ],
)
def test_no_address_goes_round_the_door(cloud: Cloud, registry: str, change: Any) -> None:
    for method in ("GET", "PATCH", "DELETE", "HEAD", "OPTIONS", "PROPFIND"):
        answer = cloud.call("registry", method, change(registry), body={} if method == "PATCH" else None)
        assert answer.status in (400, 401, 403, 404), f"{method} {change(registry)}: {answer.status}"


def test_another_certificate_is_not_the_front_doors(cloud: Cloud, registry: str) -> None:
    assert cloud.call("registry", "GET", registry, show="arm").status == 200
    for room in ("identity", "registry", "instances", "metrics"):
        answer = cloud.call("registry", "GET", registry, show=room)
        assert (answer.status, answer.code) == (403, "Forbidden"), room


def test_an_entra_token_is_no_way_to_a_provider(cloud: Cloud, registry: str) -> None:
    token = cloud.token()
    assert cloud.call("registry", "GET", registry, token=token).status == 403
    assert (
        cloud.call("identity", "GET", "/providers/Microsoft.Authorization/roleAssignments", token=token).status == 403
    )


@pytest.mark.parametrize(("letter", "other"), SPELLINGS.values(), ids=SPELLINGS.keys())
def test_what_a_role_excludes_is_excluded_in_every_spelling(
    cloud: Cloud, group: str, registry: str, letter: str, other: str
) -> None:
    who = _excluded(cloud, group)
    token = cloud.token(who)
    verbs = ("listCredentials", "regenerateCredential")
    assert cloud.call("arm", "GET", registry, token=token).status == 200
    for name in verbs:
        for spelled in (name, name.upper(), *_spelled(name, letter, other)):
            answer = cloud.call("arm", "POST", f"{registry}/{spelled}", token=token, body={"name": "password"})
            assert answer.status in (400, 403), f"{spelled}: {answer.status}"


def test_fixed_segments_are_ascii_at_the_door(cloud: Cloud, registry: str) -> None:
    token = cloud.token()
    for letter, other in SPELLINGS.values():
        for path in (
            registry,
            f"{registry}/listUsages",
            f"{registry}/tokens",
            f"{cloud.subscription}/resourceGroups",
        ):
            for spelled in _spelled(path, letter, other):
                answer = cloud.call("arm", "GET", spelled, token=token)
                # The name of a resource group may have letters of any script, and there is no such group.
                wanted = (400, "InvalidRequestUri")
                if answer.status == 404:
                    assert "guarded".translate({}) not in spelled.split("/")[4:5], spelled
                    continue
                assert (answer.status, answer.code) == wanted, spelled


_MADE: dict[Cloud, Credential] = {}


def _excluded(cloud: Cloud, group: str) -> Credential:
    """A principal that may do everything in the group but read or renew credentials."""
    if cloud not in _MADE:
        role = "11111111-2222-4333-8444-555555555555"
        path = f"{cloud.subscription}/providers/Microsoft.Authorization/roleDefinitions/{role}"
        permission = {
            "actions": ["*"],
            "notActions": [
                "Microsoft.ContainerRegistry/registries/listCredentials/action",
                "microsoft.containerregistry/registries/REGENERATECREDENTIAL/action",
            ],
        }
        properties = {
            "roleName": "All but credentials",
            "assignableScopes": [cloud.subscription],
            "permissions": [permission],
        }
        assert cloud.arm("PUT", path, {"properties": properties}).status == 201
        _MADE[cloud] = cloud.principal("excluded", **{"All but credentials": group})
    return _MADE[cloud]


def test_a_managed_identity_is_spoken_for_by_its_platform_alone(cloud: Cloud, group: str) -> None:
    path = f"{group}/providers/Microsoft.ManagedIdentity/userAssignedIdentities/spokenfor"
    client_id = cloud.arm("PUT", path, {"location": "eastus"}).body["properties"]["clientId"]
    form = {
        "grant_type": "client_credentials",
        "scope": "https://management.azure.com/.default",
        "client_id": client_id,
    }
    token_path = f"/{cloud.config.tenant_id}/oauth2/v2.0/token"
    assert cloud.call("identity", "POST", token_path, form=form, show="instances").status == 200
    for more in ({}, {"client_secret": "x"}, {"client_id": client_id.upper()}):
        assert cloud.call("identity", "POST", token_path, form={**form, **more}).body["error_codes"] == [7000218]
    for room in ("arm", "registry", "identity", "metrics"):
        answer = cloud.call("identity", "POST", token_path, form=form, show=room)
        assert (answer.status, answer.body["error_codes"]) == (401, [7000218]), room


async def test_a_route_that_somebody_adds_is_closed() -> None:
    """The list of open routes is all that opens one: a new route needs no guard of its own to be closed."""

    async def answer(_: web.Request) -> web.Response:
        return web.Response(text="open")

    app = web.Application(middlewares=[arm_errors, behind_the_front_door({"/healthz", "/open/{name}"})])
    paths = (
        "/healthz",
        "/open/{name}",
        "/new",
        "/open",
        "/open/{name}/more",
        "/{word:(?ai:healthz)}x",
        "/any/{rest:.*}",
    )
    for path in paths:
        app.router.add_route("*", path, answer)
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        base = runner.addresses[0]
        async with aiohttp.ClientSession(f"http://127.0.0.1:{base[1]}") as session:
            statuses = {}
            for path in (
                "/healthz",
                "/open/x",
                "/new",
                "/open",
                "/open/x/more",
                "/HEALTHZx",
                "/any/healthz",
                "/nothing",
                "/open/",
            ):
                async with session.get(path) as reply:
                    statuses[path] = reply.status
    finally:
        await runner.cleanup()
    assert {path for path, status in statuses.items() if status == 200} == {"/healthz", "/open/x"}
    assert {status for path, status in statuses.items() if path not in ("/healthz", "/open/x")} == {403}
