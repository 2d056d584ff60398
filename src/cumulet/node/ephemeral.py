"""The ephemeral containers of pods, which are added to groups that run already.

One that cannot run is ended with the reason, and the pod runs on. One that waits for a secret or config map is added when that
is there.
"""

from __future__ import annotations

from collections.abc import Callable

from cumulet.common import clock
from cumulet.common.config import Config
from cumulet.common.kubernetes.objects import ContainerStatus, EphemeralContainer, Pod, PodStatus
from cumulet.common.kubernetes.support import refusals
from cumulet.node.errors import MissingError, UnsupportedError
from cumulet.node.pod_fields import EPHEMERAL_CONTAINER
from cumulet.node.resource import ContainerGroup, GroupContainer
from cumulet.node.translate import Sources, ephemeral_container

#: What a user can do with a provider that takes none, as Azure's.
_NONE = "a container group takes no ephemeral containers; use exec, or kubectl debug with --copy-to"

#: Records a warning about a container, by its name.
Report = Callable[[str, str], None]


class EphemeralContainers:
    """The ephemeral containers of all pods of the node."""

    def __init__(self, sources: Sources, config: Config) -> None:
        self._sources = sources
        self._config = config
        #: Why a container does not run, by the uid of the pod and the name of the container.
        self._refused: dict[str, dict[str, str]] = {}
        self._waiting: dict[str, dict[str, str]] = {}

    def forget(self, uid: str) -> None:
        """Forget a pod that is gone."""
        self._refused.pop(uid, None)
        self._waiting.pop(uid, None)

    def of(self, pod: Pod, group: ContainerGroup | None, report: Report, *, supported: bool) -> list[GroupContainer]:
        """Return the ephemeral containers that a pod's group has or is to get; the others are reported."""
        uid, found = pod["metadata"]["uid"], []
        there = {item["name"]: item for item in _of_group(group)}
        waiting = self._waiting[uid] = {}
        for number, container in enumerate(pod["spec"].get("ephemeralContainers") or ()):
            name = container["name"]
            if name in self._ended(pod) and name not in there:
                continue
            try:
                if not supported:
                    raise UnsupportedError(_NONE)
                _check(container, number)
                found.append(ephemeral_container(pod, container, self._sources, self._config))
            except (UnsupportedError, MissingError) as error:
                if name in there:
                    # The group keeps what it has, by the name and the image.
                    found.append({"name": name, "properties": {"image": container["image"]}})
                elif isinstance(error, MissingError):
                    waiting[name] = str(error)
                    report(name, f"Error: {error}")
                else:
                    self.refuse(pod, name, str(error), report)
        return found

    def refuse(self, pod: Pod, name: str, reason: str, report: Report) -> None:
        """Record that a container cannot run."""
        self._refused.setdefault(pod["metadata"]["uid"], {})[name] = reason
        report(name, f"Error: {reason}")

    def added(self, pod: Pod, group: ContainerGroup | None) -> list[str]:
        """Return the names of a pod's ephemeral containers that its group does not have yet."""
        there = {item["name"] for item in _of_group(group)}
        names = [item["name"] for item in pod["spec"].get("ephemeralContainers") or ()]
        return [name for name in names if name not in there]

    def complete(self, pod: Pod, status: PodStatus) -> None:
        """Write into a status why some ephemeral containers do not run."""
        uid = pod["metadata"]["uid"]
        for item in status.get("ephemeralContainerStatuses") or ():
            if reason := self._refused.get(uid, {}).get(item["name"]):
                if "terminated" not in item["state"]:
                    _end(item, reason)
            elif message := self._waiting.get(uid, {}).get(item["name"]):
                item["state"] = {"waiting": {"reason": "CreateContainerConfigError", "message": message}}

    def _ended(self, pod: Pod) -> set[str]:
        """Return the names of containers that were refused, also by an earlier process of this node."""
        statuses = (pod.get("status") or {}).get("ephemeralContainerStatuses") or ()
        ended = {item["name"] for item in statuses if "terminated" in item.get("state", {})}
        return ended | self._refused.get(pod["metadata"]["uid"], {}).keys()


def _of_group(group: ContainerGroup | None) -> list[GroupContainer]:
    return (group["properties"].get("ephemeralContainers") or []) if group is not None else []


def _check(container: EphemeralContainer, number: int) -> None:
    """Raises `UnsupportedError`, which names the fields that are not supported."""
    path = f"spec.ephemeralContainers[{number}]"
    if found := list(refusals({**container}, EPHEMERAL_CONTAINER, path)):
        raise UnsupportedError("; ".join(str(refusal) for refusal in found))


def _end(status: ContainerStatus, reason: str) -> None:
    now = clock.rfc3339()
    status["state"] = {
        "terminated": {
            "exitCode": 128,
            "reason": "ContainerCannotRun",
            "message": reason,
            "startedAt": now,
            "finishedAt": now,
        }
    }
