"""The metadata service of container groups, as Microsoft documents it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import quote

import jwt
import pytest

from cumulet.common.entra import ARM_AUDIENCE
from tests.cloud import Answer, Cloud
from tests.identity.metadata import Machine, make_identity, running

TOKEN = "/metadata/identity/oauth2/token?api-version=2018-02-01"
ARM = f"{TOKEN}&resource={ARM_AUDIENCE}/"
APP_SERVICE = f"/msi/token?api-version=2019-08-01&resource={ARM_AUDIENCE}"
METADATA = {"Metadata": "true"}


@pytest.fixture
async def machine(cloud: Cloud, tmp_path: Path) -> AsyncIterator[Machine]:
    async with running(cloud, tmp_path) as made:
        yield made


def oid(answer: Answer) -> str:
    assert answer.status == 200, answer.body
    found: str = jwt.decode(answer.body["access_token"], options={"verify_signature": False})["oid"]
    return found


async def test_a_group_gets_the_tokens_of_its_identities(machine: Machine) -> None:
    first, second = make_identity(machine.cloud), make_identity(machine.cloud)
    caller = await machine.group("127.0.1.1", "SystemAssigned, UserAssigned", first["id"], second["id"])
    identity = caller.record.envelope.identity
    assert identity is not None
    answer = await caller.get(ARM, METADATA)
    assert oid(answer) == identity.principal_id
    assert answer.headers["Cache-Control"] == "no-store"
    body = answer.body
    assert body["resource"] == f"{ARM_AUDIENCE}/"
    assert body["token_type"] == "Bearer"
    assert body["client_id"] == identity.client_id
    assert 3500 < int(body["expires_in"]) <= 3600
    # The platform keeps tokens: everybody gets the same one until shortly before its end.
    again = await asyncio.gather(*(caller.get(ARM, METADATA) for _ in range(3)))
    assert {each.body["access_token"] for each in again} == {body["access_token"]}
    machine.now += 1
    for made in (first, second):
        properties = made["properties"]
        for parameter in (
            f"client_id={properties['clientId'].upper()}",
            f"object_id={properties['principalId']}",
            f"principal_id={properties['principalId']}",
            f"mi_res_id={quote(made['id'])}",
            f"msi_res_id={quote(made['id'].upper())}",
        ):
            assert oid(await caller.get(f"{ARM}&{parameter}", METADATA)) == properties["principalId"]


async def test_which_identity_is_meant(machine: Machine) -> None:
    first, second = make_identity(machine.cloud), make_identity(machine.cloud)
    one = await machine.group("127.0.1.1", "UserAssigned", first["id"])
    two = await machine.group("127.0.1.2", "UserAssigned", first["id"], second["id"])
    none = await machine.group("127.0.1.3")
    assert oid(await one.get(ARM, METADATA)) == first["properties"]["principalId"]
    for caller, query, message in (
        (two, "", "Multiple user assigned identities exist, please specify the clientId / resourceId"),
        (none, "", "Identity not found"),
        (one, f"&client_id={second['properties']['clientId']}", "Identity not found"),
        (one, "&client_id=a&object_id=b", "Only one of"),
        (one, "&mi_res_id=/x", "Identity not found"),
    ):
        answer = await caller.get(ARM + query, METADATA)
        assert (answer.status, answer.body["error"]) == (400, "invalid_request")
        assert message in answer.body["error_description"]


async def test_wrong_requests(machine: Machine) -> None:
    caller = await machine.group("127.0.1.1", "SystemAssigned")
    for path, headers, error in (
        (ARM, {}, "invalid_request"),
        (ARM, {"Metadata": "yes"}, "invalid_request"),
        (TOKEN, METADATA, "invalid_request"),
        (f"{TOKEN}&resource=a%20b", METADATA, "invalid_resource"),
        (f"{TOKEN}&resource=a%0ab", METADATA, "invalid_resource"),
        (f"{TOKEN}&resource={'a' * 1001}", METADATA, "invalid_resource"),
        ("/metadata/identity/oauth2/token?resource=x", METADATA, "invalid_request"),
        ("/metadata/identity/oauth2/token?api-version=new&resource=x", METADATA, "invalid_request"),
    ):
        answer = await caller.get(path, headers)
        assert (answer.status, answer.body["error"]) == (400, error), path
    assert (await caller.get("/metadata/other", METADATA)).status == 404


async def test_app_services_protocol(machine: Machine) -> None:
    made = make_identity(machine.cloud)
    caller = await machine.group("127.0.1.1", "UserAssigned", made["id"])
    variables = machine.workload.variables(caller.record)
    assert variables["IDENTITY_ENDPOINT"] == "http://169.254.169.254/msi/token"
    headers = {"X-IDENTITY-HEADER": variables["IDENTITY_HEADER"]}
    answer = await caller.get(APP_SERVICE, headers)
    assert oid(answer) == made["properties"]["principalId"]
    assert answer.body.keys() == {"access_token", "client_id", "expires_on", "resource", "token_type"}
    refused = await caller.get(f"{APP_SERVICE}&client_id=other", headers)
    assert (refused.status, refused.body["statusCode"]) == (400, 400)


async def test_the_instance(machine: Machine) -> None:
    caller = await machine.group("127.0.1.1")
    version = "api-version=2021-02-01"
    whole = (await caller.get(f"/metadata/instance?{version}", METADATA)).body
    assert whole["compute"]["resourceId"] == caller.record.id
    assert whole["compute"]["resourceGroupName"] == "metadata"
    part = await caller.get(f"/metadata/instance/network/interface/0/ipv4/ipAddress/0?{version}", METADATA)
    assert part.body["privateIpAddress"] == "127.0.1.1"
    location = await caller.get(f"/metadata/instance/compute/location?{version}&format=text", METADATA)
    assert location.body == "eastus"
    listed = await caller.get(f"/metadata/instance?{version}&format=text", METADATA)
    assert listed.body == "compute/\nnetwork/"
    assert (await caller.get(f"/metadata/instance/compute/location?{version}", METADATA)).status == 400
    assert (await caller.get(f"/metadata/instance/compute/none?{version}", METADATA)).status == 404
    assert (await caller.get("/metadata/instance", METADATA)).status == 400
    assert (await caller.get(f"/metadata/instance?{version}")).body == {
        "error": "Bad request. Required metadata header not specified"
    }


async def test_requests_of_a_group_are_bounded(machine: Machine) -> None:
    caller, other = await machine.group("127.0.1.1"), await machine.group("127.0.1.2")
    answers = [await caller.get(ARM, METADATA) for _ in range(21)]
    assert [answer.status for answer in answers] == [400] * 20 + [429]
    assert answers[-1].headers["Retry-After"] == "1"
    assert (await other.get(ARM, METADATA)).status == 400
    machine.now += 0.05
    assert [(await caller.get(ARM, METADATA)).status for _ in range(2)] == [400, 429]


async def test_an_identity_that_is_gone(machine: Machine) -> None:
    made = make_identity(machine.cloud)
    caller = await machine.group("127.0.1.1", "UserAssigned", made["id"])
    assert machine.cloud.arm("DELETE", made["id"]).status == 200
    answer = await caller.get(ARM, METADATA)
    assert (answer.status, answer.body["error"]) == (400, "invalid_request")
    assert "Identity not found" in answer.body["error_description"]
