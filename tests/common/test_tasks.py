"""Tasks that depend on each other."""

from __future__ import annotations

import asyncio

import pytest

from cumulet.common.tasks import until_one_ends


async def test_when_one_ends_the_others_are_ended_first() -> None:
    ended = []

    async def long() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            ended.append("long")

    async def short() -> None:
        await asyncio.sleep(0)

    await until_one_ends(long(), short(), long())
    assert ended == ["long", "long"]


async def test_what_one_fails_with_is_raised() -> None:
    async def fail() -> None:
        raise ValueError("why")

    with pytest.raises(ValueError, match="why"):
        await until_one_ends(asyncio.Event().wait(), fail())
