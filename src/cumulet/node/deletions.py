"""Ends terminating pods: deletes their container groups, at the same time, each with its pod's grace period.

As in the kubelet, a pod gets its last status, which is Succeeded or Failed, before it is deleted. A pod with a finalizer,
such as that of a job, stays with that status until the finalizer is removed.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable

import aiohttp

from cumulet.common.arm import ArmError
from cumulet.common.entra import AuthenticationError
from cumulet.common.kubernetes import Client, KubernetesError, suppress_stale
from cumulet.common.kubernetes.client import PODS
from cumulet.common.kubernetes.objects import Pod
from cumulet.common.tasks import TaskSet
from cumulet.node.aci import ContainerGroups
from cumulet.node.resource import GroupProperties
from cumulet.node.translate import group_name

log = logging.getLogger(__name__)


class Deletions:
    """One deletion per pod, and another when its grace period is shortened.

    `ended` is awaited with a pod and the last properties of its group, to write the last status. `failed` is called with a
    pod to retry.
    """

    def __init__(
        self,
        client: Client,
        groups: ContainerGroups,
        tasks: TaskSet,
        ended: Callable[[Pod, GroupProperties | None], Awaitable[None]],
        failed: Callable[[Pod], object],
    ) -> None:
        self._client = client
        self._aci = groups
        self._tasks = tasks
        self._ended = ended
        self._failed = failed
        self._grace: dict[str, int] = {}

    def begin(self, pod: Pod) -> None:
        """Delete a pod's group and then the pod, in the background, unless that is in progress."""
        metadata = pod["metadata"]
        uid = metadata["uid"]
        grace: int = metadata.get("deletionGracePeriodSeconds", 30)
        if uid not in self._grace or grace < self._grace[uid]:
            self._grace[uid] = grace
            self._tasks.start(self._end(pod, grace), f"delete pod {metadata['name']}")

    async def _end(self, pod: Pod, grace: int) -> None:
        metadata = pod["metadata"]
        uid = metadata["uid"]
        try:
            await self._ended(pod, await self._aci.delete(group_name(pod), grace))
            with suppress_stale():
                await self._client.delete(
                    PODS, metadata["name"], metadata["namespace"], grace_period_seconds=0, uid=uid
                )
        except (KubernetesError, ArmError, AuthenticationError, aiohttp.ClientError, TimeoutError) as error:
            self._try_again(pod, error)
        finally:
            self._grace.pop(uid, None)

    def _try_again(self, pod: Pod, error: Exception) -> None:
        log.warning("pod %s is not deleted yet: %s", pod["metadata"]["name"], error or "timeout")
        self._failed(pod)
