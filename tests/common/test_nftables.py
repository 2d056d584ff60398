"""libnftables in a network namespace, read back by nft(8)."""

from __future__ import annotations

import asyncio
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from cumulet.common import namespaces
from cumulet.common.nftables import AbsentError, Nftables, NftablesError, UnavailableError


@pytest.fixture(scope="module")
def namespace() -> Iterator[str]:
    name = f"cumulet-test-{os.getpid()}"
    subprocess.run(["ip", "netns", "add", name], check=True)
    try:
        yield name
    finally:
        subprocess.run(["ip", "netns", "delete", name], check=True)


@pytest.fixture
def rules(namespace: str) -> Iterator[Nftables]:
    with Nftables(namespace) as opened:
        yield opened
        opened.run_now("flush ruleset")


def shown(namespace: str) -> str:
    command = ["ip", "netns", "exec", namespace, "nft", "list", "ruleset"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


async def test_a_script_is_one_transaction_of_its_namespace(rules: Nftables, namespace: str) -> None:
    await rules.run("add table ip one\nadd set ip one hosts { type ipv4_addr; elements = { 10.0.0.1 } }")
    assert "10.0.0.1" in shown(namespace)
    with Nftables() as own:
        assert not [item for item in await own.listing("tables") if item["table"]["name"] == "one"]
    with pytest.raises(NftablesError):
        await rules.run(
            "add element ip one hosts { 10.0.0.2 }\nadd chain ip one c { type nonsense hook input priority 0; }"
        )
    assert "10.0.0.2" not in shown(namespace)


async def test_a_listing_is_of_objects(rules: Nftables) -> None:
    await rules.run("table inet two { map m { type mark : ipv4_addr; elements = { 7 : 10.0.0.7 }; }; }")
    found = await rules.listing("table inet two")
    assert [next(iter(item)) for item in found] == ["table", "map"]
    assert found[1]["map"]["elem"] == [[7, "10.0.0.7"]]


async def test_errors_say_what_is_wrong(rules: Nftables) -> None:
    with pytest.raises(AbsentError, match="No such file or directory: add element ip nowhere"):
        await rules.run("add element ip nowhere hosts { 10.0.0.1 }")
    with pytest.raises(NftablesError, match="syntax error") as caught:
        await rules.run("nonsense")
    assert type(caught.value) is NftablesError
    with pytest.raises(UnavailableError, match="the network namespace cumulet-nowhere: No such file"):
        Nftables("cumulet-nowhere")


async def test_a_table_removed_by_another_program_is_absent(rules: Nftables, namespace: str) -> None:
    await rules.run("add table ip three\nadd set ip three hosts { type ipv4_addr; }")
    with Nftables(namespace) as other:
        await other.run("flush ruleset")
    with pytest.raises(AbsentError):
        await rules.run("add element ip three hosts { 10.0.0.1 }")
    await rules.run("add table ip three")


async def test_calls_from_several_tasks_run_in_order(rules: Nftables) -> None:
    await rules.run("add table ip four\nadd set ip four hosts { type ipv4_addr; }")
    await asyncio.gather(*(rules.run(f"add element ip four hosts {{ 10.0.0.{last} }}") for last in range(1, 50)))
    (found,) = [item["set"] for item in await rules.listing("set ip four hosts") if "set" in item]
    assert len(found["elem"]) == 49


def test_a_check_changes_nothing(namespace: str) -> None:
    with Nftables(namespace) as rules:
        rules.check_now("add table ip five")
        assert rules.listing_now("tables") == []


def test_work_in_a_namespace_leaves_this_thread_where_it_is(namespace: str) -> None:
    own = Path("/proc/thread-self/ns/net").readlink()
    assert namespaces.inside(namespace, lambda: Path("/proc/thread-self/ns/net").readlink()) != own
    assert Path("/proc/thread-self/ns/net").readlink() == own
    assert namespaces.exists(namespace)
    assert not namespaces.exists("cumulet-nowhere")
