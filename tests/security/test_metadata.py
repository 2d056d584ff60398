"""A group gets the tokens of its own identities, whatever its requests say."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import jwt
import pytest

from cumulet.common.entra import ARM_AUDIENCE
from tests.cloud import Cloud
from tests.identity.metadata import Machine, make_identity, running

ARM = f"/metadata/identity/oauth2/token?api-version=2018-02-01&resource={ARM_AUDIENCE}"
APP_SERVICE = f"/msi/token?api-version=2019-08-01&resource={ARM_AUDIENCE}"
METADATA = {"Metadata": "true"}


@pytest.fixture
async def machine(cloud: Cloud, tmp_path: Path) -> AsyncIterator[Machine]:
    async with running(cloud, tmp_path) as made:
        yield made


async def test_nothing_in_a_request_names_another_group(machine: Machine) -> None:
    mine, theirs = make_identity(machine.cloud), make_identity(machine.cloud)
    caller = await machine.group("127.0.1.1", "UserAssigned", mine["id"])
    victim = await machine.group("127.0.1.2", "UserAssigned", theirs["id"])
    address = victim.record.status.ip
    for headers in (
        {"Host": address},
        {"Forwarded": f"for={address}"},
        {"X-Real-IP": address},
        {"X-Client-IP": address, "True-Client-IP": address},
        {"X-IDENTITY-HEADER": machine.workload.header(victim.record)},
    ):
        answer = await caller.get(ARM, {**METADATA, **headers})
        claims = jwt.decode(answer.body["access_token"], options={"verify_signature": False})
        assert claims["oid"] == mine["properties"]["principalId"]
    wanted = theirs["properties"]
    for query in (
        f"&client_id={wanted['clientId']}",
        f"&object_id={wanted['principalId']}",
        f"&mi_res_id={theirs['id']}",
        f"&client_id=&object_id={wanted['principalId']}",
    ):
        assert (await caller.get(ARM + query, METADATA)).status == 400


async def test_forwarded_requests_are_refused(machine: Machine) -> None:
    made = make_identity(machine.cloud)
    caller = await machine.group("127.0.1.1", "UserAssigned", made["id"])
    header = {"X-IDENTITY-HEADER": machine.workload.header(caller.record)}
    for path, headers in (
        (ARM, METADATA),
        (APP_SERVICE, header),
        ("/metadata/instance?api-version=latest", METADATA),
    ):
        assert (await caller.get(path, headers)).status == 200
        for value in ("", "127.0.1.1", "10.0.0.1, 10.0.0.2"):
            assert (await caller.get(path, {**headers, "X-Forwarded-For": value})).status == 400
            machine.now += 1


async def test_the_identity_header_is_the_groups_own(machine: Machine) -> None:
    made = make_identity(machine.cloud)
    caller = await machine.group("127.0.1.1", "UserAssigned", made["id"])
    other = await machine.group("127.0.1.2", "UserAssigned", made["id"])
    own, foreign = machine.workload.header(caller.record), machine.workload.header(other.record)
    assert own != foreign
    for value in ("", "x", own[:-1], own.upper(), foreign, "\u00e9"):
        answer = await caller.get(APP_SERVICE, {"X-IDENTITY-HEADER": value})
        assert (answer.status, answer.body["message"][:10]) == (401, "The header")
    assert (await caller.get(APP_SERVICE)).status == 401
    # A group without an identity has no header, and none is right.
    bare = await machine.group("127.0.1.3")
    assert machine.workload.variables(bare.record) == {}
    assert (await bare.get(APP_SERVICE, {"X-IDENTITY-HEADER": machine.workload.header(bare.record)})).status == 401


async def test_an_address_without_a_group_gets_nothing(machine: Machine) -> None:
    for path in (ARM, APP_SERVICE, "/metadata/instance?api-version=latest", "/metadata/versions"):
        assert (await machine.get(path, METADATA, "127.0.1.9")).status == 400
