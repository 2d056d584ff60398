"""Rotation of signing keys: it invalidates no token, and every key is published before it signs."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import jwt
import pytest

from cumulet.identity.signing_keys import TOKEN_LIFE, SigningKeys
from cumulet.identity.store import Directory
from tests.cloud import Cloud

AUDIENCE, ISSUER = "api://a", "https://issuer"
STEP = timedelta(hours=6)


class Clock:
    """A clock that the test sets."""

    def __init__(self) -> None:
        self.now = datetime(2026, 11, 24, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now


@pytest.fixture
async def directory(tmp_path: Path) -> AsyncIterator[Directory]:
    made = Directory(tmp_path / "identity.db")
    made.open()
    yield made
    made.close()


def kid_of(token: str) -> str:
    kid: str = jwt.get_unverified_header(token)["kid"]
    return kid


def published(keys: SigningKeys) -> set[str]:
    return {key.kid for key in keys.public().keys}


async def test_rotation_logs_nobody_out(directory: Directory) -> None:
    clock = Clock()
    keys = SigningKeys(directory, clock)
    since: dict[str, datetime] = {}
    tokens: list[tuple[datetime, str]] = []
    signed_with: set[str] = set()
    for _ in range(4 * 65):
        await keys.maintain()
        for kid in published(keys):
            since.setdefault(kid, clock.now)
        kid = kid_of(keys.sign({"aud": AUDIENCE}))
        if signed_with and kid not in signed_with:
            # A client that read the keys within the last day has this one.
            assert clock.now - since[kid] >= timedelta(days=1)
        signed_with.add(kid)
        tokens.append((clock.now + timedelta(seconds=TOKEN_LIFE), kid))
        assert {kid for ends, kid in tokens if ends > clock.now} <= published(keys)
        clock.now += STEP
    assert len(signed_with) == 3
    assert len(published(keys)) <= 2


async def test_keys_outlive_the_process(directory: Directory) -> None:
    first = SigningKeys(directory)
    await first.maintain()
    token = first.sign({"aud": AUDIENCE, "iss": ISSUER, "oid": "o", "exp": 4102444800})
    second = SigningKeys(directory)
    await second.maintain()
    assert second.verify(token, [AUDIENCE], ISSUER).oid == "o"
    assert published(first) == published(second)


async def test_an_old_key_signs_until_the_new_one_is_known(directory: Directory) -> None:
    """After months without a run, the next key is created, and signs only after it was published for a day."""
    clock = Clock()
    keys = SigningKeys(directory, clock)
    await keys.maintain()
    old = kid_of(keys.sign({}))
    clock.now += timedelta(days=200)
    await keys.maintain()
    assert kid_of(keys.sign({})) == old
    assert len(published(keys)) == 2
    clock.now += timedelta(days=1, seconds=1)
    assert kid_of(keys.sign({})) != old


async def test_a_clock_that_was_set_back_still_signs(directory: Directory) -> None:
    clock = Clock()
    keys = SigningKeys(directory, clock)
    await keys.maintain()
    clock.now -= timedelta(days=1)
    assert kid_of(keys.sign({})) in published(keys)


def test_a_token_is_good_after_identity_was_killed(cloud: Cloud) -> None:
    token = cloud.token()
    cloud.kill("identity")
    path = f"{cloud.subscription}/resourcegroups"
    assert cloud.call("arm", "GET", path, token=token).status == 200
    assert cloud.arm("GET", path).status == 200
