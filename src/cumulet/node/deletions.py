"""Pods on their way out: their groups are ended with the pods' grace, all of them at the same time."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import aiohttp

from cumulet.common.arm import ArmError
from cumulet.common.entra import AuthenticationError
from cumulet.common.kubernetes import Client, KubernetesError
from cumulet.common.kubernetes.client import PODS
from cumulet.common.tasks import TaskSet
from cumulet.node.aci import ContainerGroups
from cumulet.node.translate import group_name

log = logging.getLogger(__name__)

Object = dict[str, Any]


class Deletions:
    """One deletion a pod, and one more where its grace is made shorter. `failed` is called with a pod to try again."""

    def __init__(
        self, client: Client, groups: ContainerGroups, tasks: TaskSet, failed: Callable[[Object], object]
    ) -> None:
        self._client = client
        self._aci = groups
        self._tasks = tasks
        self._failed = failed
        self._grace: dict[str, int] = {}

    def begin(self, pod: Object) -> None:
        """End a pod's group and then the pod, in the background; nothing where that is under way already."""
        metadata = pod["metadata"]
        uid = metadata["uid"]
        grace: int = metadata.get("deletionGracePeriodSeconds", 30)
        if uid not in self._grace or grace < self._grace[uid]:
            self._grace[uid] = grace
            self._tasks.start(self._end(pod, grace), f"delete pod {metadata['name']}")

    async def _end(self, pod: Object, grace: int) -> None:
        metadata = pod["metadata"]
        uid = metadata["uid"]
        try:
            await self._aci.delete(group_name(pod), grace)
            await self._client.delete(PODS, metadata["name"], metadata["namespace"], grace_period_seconds=0, uid=uid)
        except KubernetesError as error:
            if error.code not in (404, 409):  # it has gone, or is another pod by now
                self._try_again(pod, error)
        except (ArmError, AuthenticationError, aiohttp.ClientError, TimeoutError) as error:
            self._try_again(pod, error)
        finally:
            self._grace.pop(uid, None)

    def _try_again(self, pod: Object, error: Exception) -> None:
        log.warning("pod %s is not deleted yet: %s", pod["metadata"]["name"], error or "timeout")
        self._failed(pod)
