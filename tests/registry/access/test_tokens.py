"""The registry's own keys: signing, rotation and sealing."""

from __future__ import annotations

import hmac
from pathlib import Path

import jwt
import pytest

from cumulet.registry.access.tokens import REFRESH_LIFE, SealError, Tokens, Unauthorized


class Clock:
    """A clock that the test sets."""

    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


def test_rotation_logs_nobody_out(tmp_path: Path) -> None:
    clock = Clock()
    tokens = Tokens(tmp_path, clock)
    living: list[tuple[float, str]] = []
    kids = set()
    for _ in range(200):
        token = tokens.issue("s", "who", REFRESH_LIFE, grant_type="refresh_token")
        kids.add(jwt.get_unverified_header(token)["kid"])
        living = [(ends, old) for ends, old in living if ends > clock.now]
        living.append((clock.now + REFRESH_LIFE, token))
        for _, old in living:
            # A restarted process verifies it too.
            assert Tokens(tmp_path, clock).verify(old, "s", "refresh_token").sub == "who"
        clock.now += 3000
    assert len(kids) == 7
    with pytest.raises(Unauthorized, match="expired"):
        tokens.verify(living[0][1], "s", "refresh_token")


def test_a_sealed_secret_opens_only_for_its_place(tmp_path: Path) -> None:
    tokens = Tokens(tmp_path)
    sealed = tokens.seal("here", "a secret")
    assert tokens.open("here", sealed) == "a secret"
    assert tokens.seal("here", "a secret") != sealed
    for place, text in (("there", sealed), ("here", sealed[:-2] + "00"), ("here", "zz"), ("here", "")):
        with pytest.raises(SealError):
            tokens.open(place, text)
    assert not hmac.compare_digest(tokens.derive("a"), tokens.derive("b"))


def test_an_access_token_expires(tmp_path: Path) -> None:
    clock = Clock()
    tokens = Tokens(tmp_path, clock)
    token = tokens.issue("s", "who", 600, grant_type="access_token")
    assert tokens.verify(token, "s", "access_token")
    clock.now += 601
    with pytest.raises(Unauthorized, match="expired"):
        tokens.verify(token, "s", "access_token")
