"""What the node says that its pods use, where the provider does not always say."""

from __future__ import annotations

from typing import Any

from cumulet.common.arm import ArmError
from cumulet.node.stats import Stats

_POD = {"metadata": {"name": "p", "namespace": "default", "uid": "u"}, "status": {"phase": "Running"}}


class _Provider:
    """One whose metrics may be away."""

    away = False

    async def usage(self, name: str) -> dict[str, dict[str, float]]:
        if self.away:
            raise ArmError(503, "ServiceUnavailable", "later")
        return {"c": {"CpuUsage": 1000.0, "MemoryUsage": 1.0}}


class _Pods:
    pods = (_POD,)


async def test_processor_time_does_not_begin_anew_when_the_provider_was_away() -> None:
    provider = _Provider()
    pods: Any = _Pods()
    groups: Any = provider
    stats = Stats(pods, groups, "node")

    async def used() -> list[int]:
        told = (await stats.summary())["pods"]
        return [part["cpu"]["usageCoreNanoSeconds"] for pod in told for part in (pod, *pod["containers"])]

    await used()
    before = await used()
    assert all(before)
    provider.away = True
    assert await used() == []
    provider.away = False
    assert all(now >= then for now, then in zip(await used(), before, strict=True))
