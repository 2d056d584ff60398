"""Reconciles the pods of the node with their container groups, in both directions."""

from __future__ import annotations

import logging

from cumulet.common.arm import ArmError
from cumulet.common.config import Config
from cumulet.common.kubernetes import Client, Informer, WorkQueue
from cumulet.common.kubernetes.client import NODES, PODS
from cumulet.common.kubernetes.objects import (
    PartialObjectMetadata,
    PersistentVolumeClaim,
    Pod,
)
from cumulet.common.node_names import kubelet_identity
from cumulet.common.tasks import TaskSet
from cumulet.node.aci import ContainerGroups
from cumulet.node.admission import Admission
from cumulet.node.bodies import Bodies
from cumulet.node.checks import invalid_images
from cumulet.node.claims import ATTACHED_ELSEWHERE, Claims, UnboundError, claims_of
from cumulet.node.credentials import Credentials, Puller
from cumulet.node.deletions import Deletions
from cumulet.node.environment import Environment
from cumulet.node.ephemeral import EphemeralContainers
from cumulet.node.errors import MissingError, MountError, RejectedError, UnsupportedError
from cumulet.node.fields import Fields
from cumulet.node.group_changes import changing_parts, keep_resources
from cumulet.node.known_groups import Key, KnownGroups
from cumulet.node.names import pod_dns
from cumulet.node.ordinary_fields import ORDINARY_POD_SPEC
from cumulet.node.phase import ENDED
from cumulet.node.pod_events import PodEvents, path_of
from cumulet.node.pod_fields import POD_SPEC
from cumulet.node.profile import Profile
from cumulet.node.references import References, names_of
from cumulet.node.refusals import Refusals
from cumulet.node.renewal import Renewal
from cumulet.node.resizes import Resizes
from cumulet.node.resource import (
    ContainerGroup,
    GroupProperties,
)
from cumulet.node.status import (
    ended_status,
    failed_status,
    has_failed,
    is_over,
    is_restarted,
    lost_status,
    pending_status,
    pod_status,
    waiting_status,
)
from cumulet.node.status_writes import StatusWrites
from cumulet.node.tokens import Tokens, uses_account
from cumulet.node.translate import Sources, group_name
from cumulet.node.volumes import Volumes
from cumulet.node.watched import Watched

log = logging.getLogger(__name__)

#: Statuses of refusals that the same request gets again.
_FINAL = (400, 413)


class Pods:
    """One key per pod. A reconciliation starts from the current state, so that it can be repeated at any time."""

    def __init__(
        self,
        client: Client,
        groups: ContainerGroups,
        config: Config,
        profile: Profile,
        watched: Watched,
        tasks: TaskSet,
    ) -> None:
        self._client = client
        self._aci = groups
        self._config = config
        self._host = profile.address.host
        self.watched = watched
        self.queue: WorkQueue[Key] = WorkQueue(first_delay=0.2, ceiling=60.0)
        self.events = PodEvents(client, profile.name, watched.client)
        self.pods = Informer(client, PODS, field_selector=f"spec.nodeName={profile.name}")
        references = References(watched.secrets, watched.config_maps)
        fields = Fields(self._host, profile.allocatable)
        tokens = Tokens(client, watched.accounts)
        puller = Puller(kubelet_identity(config), config.registry_suffix) if not profile.is_virtual else None
        self._sources = Sources(
            Environment(references, fields, watched.services),
            Volumes(references, fields, tokens, Claims(watched.claims, watched.volumes)),
            Credentials(watched.secrets, puller),
            profile.machine,
        )
        self._renewal = Renewal(groups, references, self._sources, tokens)
        self._ephemeral = EphemeralContainers(self._sources, config)
        table = POD_SPEC if profile.is_virtual else ORDINARY_POD_SPEC
        self.bodies = Bodies(self._sources, config, groups, self._ephemeral, self.events, table)
        self._admission = Admission(profile.allocatable, lambda: client.get(NODES, profile.name))
        self._statuses = StatusWrites(client)
        self._deletions = Deletions(client, groups, tasks, self._ended, lambda pod: self.queue.retry(_key(pod)))
        self._refusals = Refusals()
        self._resizes = Resizes(groups)
        self._groups = KnownGroups()
        #: The groups that are gone, as they were last seen, until their pods are gone too.
        self._last: dict[str, ContainerGroup] = {}
        self._seen_groups = False
        self._sent: dict[str, bytes] = {}
        self.pods.add_handler(self._pod_changed)
        watched.secrets.add_handler(self._reference_changed)
        watched.config_maps.add_handler(self._reference_changed)
        watched.accounts.add_handler(self._account_changed)
        watched.claims.add_handler(self._claim_changed)

    # Changes.

    def _pod_changed(self, change: str, pod: Pod, old: Pod | None) -> None:
        self.queue.add(_key(pod))
        if change == "DELETED":
            self._sent.pop(pod["metadata"]["uid"], None)
            self.events.forget(pod["metadata"]["uid"])
            self._refusals.forget(pod["metadata"]["uid"])
            self._statuses.forget(pod["metadata"]["uid"])
            self._admission.release(pod["metadata"]["uid"])
            self._last.pop(pod["metadata"]["uid"], None)
            self._renewal.forget(pod["metadata"]["uid"])
            self._ephemeral.forget(pod["metadata"]["uid"])
            self._resizes.forget(pod["metadata"]["uid"])

    def _reference_changed(self, change: str, obj: PartialObjectMetadata, old: PartialObjectMetadata | None) -> None:
        """Reconcile the pods that refer to a secret or config map that changed."""
        namespace, name = obj["metadata"]["namespace"], obj["metadata"]["name"]
        for pod in self.pods:
            if pod["metadata"]["namespace"] == namespace and name in names_of(pod):
                self.queue.add(_key(pod))

    def _account_changed(
        self, change: str, account: PartialObjectMetadata, old: PartialObjectMetadata | None
    ) -> None:
        """Reconcile the pods whose service account is new: tokens of the one before are not accepted."""
        if change == "ADDED":
            for pod in self.pods:
                if uses_account(pod, account):
                    self.queue.add(_key(pod))

    def _claim_changed(self, change: str, claim: PersistentVolumeClaim, old: PersistentVolumeClaim | None) -> None:
        """Reconcile the pods that use a claim."""
        namespace, name = claim["metadata"]["namespace"], claim["metadata"]["name"]
        for pod in self.pods:
            if pod["metadata"]["namespace"] == namespace and name in claims_of(pod):
                self.queue.add(_key(pod))

    async def watch(self) -> None:
        """Watch the groups until cancelled."""
        await self.events.adopt()
        async for groups in self._aci.changes():
            mine = {
                group["tags"]["UID"]: group
                for group in groups
                if (group.get("tags") or {}).get("NodeName") == self._config.node_name
                and group["tags"].get("ClusterName", self._config.cluster) == self._config.cluster
                and "UID" in group["tags"]
            }
            before = self._groups.replace(mine)
            first, self._seen_groups = not self._seen_groups, True
            by_uid = {pod["metadata"]["uid"]: pod for pod in self.pods}
            self._last |= {uid: before[uid] for uid in before.keys() - mine.keys() if uid in by_uid}
            for uid in mine.keys() | before.keys():
                if before.get(uid) != mine.get(uid):
                    pod = by_uid.get(uid)
                    if pod is not None:
                        self.queue.add(_key(pod))
                    elif uid in mine:
                        tags = mine[uid]["tags"]
                        self.queue.add((tags["Namespace"], tags["PodName"]))
            if first:
                for pod in self.pods:
                    self.queue.add(_key(pod))

    # Reconciliation.

    async def reconcile(self, key: Key) -> None:
        """Reconcile one pod and its group."""
        if not self._seen_groups:
            return
        pod = self.pods.get(key[1], key[0])
        await self._remove_orphans(key, pod)
        if pod is None:
            return
        pod = self._statuses.newest(pod)
        uid = pod["metadata"]["uid"]
        group = self._groups.get(uid)
        phase = (pod.get("status") or {}).get("phase")
        if phase in ENDED:
            self._admission.release(uid)
        elif group is not None:
            self._admission.keep(pod)
        if pod["metadata"].get("deletionTimestamp"):
            if group is None and phase in ENDED and not pod["metadata"].get("deletionGracePeriodSeconds"):
                return  # only finalizers of others keep it
            self._deletions.begin(pod)
            if group is not None:
                self.events.of_group(pod, group)
                await self._statuses.write(pod, pod_status(pod, group, self._host))
            return
        refusal = ""
        if group is None:
            if phase in ENDED:
                return
            if _was_running(pod):
                await self._statuses.write(pod, lost_status(pod, self._host))
                return
            group = await self._create(pod)
            if group is None:
                return
        elif phase not in ENDED:
            if has_failed(group) and is_restarted(pod):
                self.events.of_group(pod, group)
                await self._aci.delete(group["name"], 0)
                self._groups.pop(uid)
                await self._refuse(pod, f"container group {group['name']} failed")
                return
            if not is_over(group):  # to ACI, a PUT of a group that has ended is the demand to run it again
                # Arguments with new values come first: they do not change with the rest of the group.
                await self._renew(pod, group["name"])
                await self._renew_group(pod, group)
                refusal = await self._resizes.resize(pod, group)
        self.events.of_group(pod, group)
        status = pod_status(pod, group, self._host, refusal)
        self._ephemeral.complete(pod, status)
        if status["phase"] == "Running":
            self._refusals.forget(uid)
        await self._statuses.write(pod, status)

    async def _ended(self, pod: Pod, properties: GroupProperties | None) -> None:
        """Write the last status of a terminating pod, whose group is gone."""
        newest = self.pods.get(pod["metadata"]["name"], pod["metadata"]["namespace"])
        if newest is None or newest["metadata"]["uid"] != pod["metadata"]["uid"]:
            return
        newest = self._statuses.newest(newest)
        uid = pod["metadata"]["uid"]
        seen = self._groups.pop(uid) or self._last.pop(uid, None)
        if properties is None and seen is not None:
            properties = seen["properties"]
        await self._statuses.write(newest, ended_status(newest, properties, self._host))

    async def _create(self, pod: Pod) -> ContainerGroup | None:
        """Create the group and return it, or record why it cannot be created."""
        if (seconds := self._refusals.due_in(pod["metadata"]["uid"])) > 0:
            self.queue.add_after(_key(pod), seconds)
            return None
        if await self._has_invalid_image(pod):
            return None
        versions = self._renewal.versions(pod)
        try:
            await self._admission.admit(pod)
            self.bodies.check(pod)
            body = await self.bodies.of(pod, None)
        except RejectedError as error:
            self.events.event(pod, "Warning", error.reason, str(error))
            await self._statuses.write(pod, failed_status(pod, error.reason, f"Pod was rejected: {error}"))
            return None
        except UnsupportedError as error:
            self.events.event(pod, "Warning", "ProviderCreateFailed", str(error))
            await self._refuse(pod, str(error))
            return None
        except MissingError as error:
            await self._hold_back(pod, error)
            return None
        self._report_pull_secrets(pod)
        for warning in pod_dns(pod, self._config).warnings:
            self.events.once(pod, "", "Warning", "DNSConfigForming", warning)
        try:
            group = await self._aci.put(group_name(pod), body)
        except ArmError as error:
            if error.code == ATTACHED_ELSEWHERE:
                message = f"Multi-Attach error: the volume is already exclusively attached to one node: {error}"
                self.events.once(pod, "", "Warning", "FailedAttachVolume", message)
                await self._statuses.write(pod, waiting_status(pod, self._host, "ContainerCreating", {}))
                self.queue.add_after(_key(pod), self._refusals.refused(pod["metadata"]["uid"]))
                return None
            self.events.event(pod, "Warning", "ProviderCreateFailed", f"{error.code}: {error}")
            await self._refuse(pod, f"{error.code}: {error}", final=error.status in _FINAL)
            return None
        uid = pod["metadata"]["uid"]
        properties = body["properties"]
        ephemeral = [item["name"] for item in properties.get("ephemeralContainers") or ()]
        self._sent[uid] = changing_parts(pod, properties["imageRegistryCredentials"], ephemeral)
        self._groups.add(uid, group)
        self._renewal.created(pod, versions, body["properties"])
        return group

    async def _hold_back(self, pod: Pod, error: MissingError) -> None:
        """Record what a pod waits for. A change of that reconciles it again."""
        if isinstance(error, UnboundError):
            status = waiting_status(pod, self._host, "ContainerCreating", {})
        elif isinstance(error, MountError):
            self.events.once(pod, "", "Warning", "FailedMount", str(error))
            status = waiting_status(pod, self._host, "ContainerCreating", {})
        else:
            self.events.once(pod, path_of(pod, error.container), "Warning", "Failed", f"Error: {error}")
            message = str(error) if error.container is None else {error.container: str(error)}
            status = waiting_status(pod, self._host, "CreateContainerConfigError", message)
        await self._statuses.write(pod, status)
        if error.again is not None:
            self.queue.add_after(_key(pod), error.again)

    async def _refuse(self, pod: Pod, reason: str, *, final: bool = True) -> None:
        """Record why the pod has no container group, and retry with a back-off (virtual-kubelet's `handleProviderError`).

        A pod with restartPolicy Never fails when the refusal is `final`. If another pod failed, its owner would replace
        it at once, and then the replacement.
        """
        fails = final and not is_restarted(pod)
        make = failed_status if fails else pending_status
        await self._statuses.write(pod, make(pod, "ProviderFailed", reason))
        if not fails:
            self.queue.add_after(_key(pod), self._refusals.refused(pod["metadata"]["uid"]))

    async def _has_invalid_image(self, pod: Pod) -> bool:
        """Report the images whose names are not valid, as a kubelet does, and return whether there are any."""
        invalid = invalid_images(pod)
        for name, message in invalid.items():
            path = path_of(pod, name)
            self.events.once(pod, path, "Warning", "InspectFailed", message)
            self.events.once(pod, path, "Warning", "Failed", "Error: InvalidImageName")
        if invalid:
            await self._statuses.write(pod, waiting_status(pod, self._host, "InvalidImageName", invalid))
        return bool(invalid)

    def _report_pull_secrets(self, pod: Pod) -> None:
        """Record an event about pull secrets that are missing or not valid, once for each message."""
        if message := self._sources.credentials.of(pod).event:
            self.events.once(pod, "", "Warning", "FailedToRetrieveImagePullSecret", message)

    async def _renew_group(self, pod: Pod, group: ContainerGroup) -> None:
        """Update the group when its pull secrets or its deadline have changed, or when there is a new ephemeral container.

        A failure is reported, and the pod's status goes on.
        """
        uid = pod["metadata"]["uid"]
        credentials = self._sources.credentials.of(pod).found
        ephemeral = [item["name"] for item in self.bodies.ephemeral(pod, group)]
        encoded = changing_parts(pod, credentials, ephemeral)
        if self._sent.get(uid) == encoded:
            return
        self._report_pull_secrets(pod)
        try:
            body = await self.bodies.of(pod, group)
            keep_resources(body, group)
            await self._aci.put(group_name(pod), body)
        except (MissingError, RejectedError, UnsupportedError) as error:
            log.info("pod %s keeps its credentials: %s", pod["metadata"]["name"], error)
            return
        except ArmError as error:
            added = set(self._ephemeral.added(pod, group)).intersection(ephemeral)
            if error.status in _FINAL and added:
                for name in added:
                    self._ephemeral.refuse(pod, name, f"{error.code}: {error}", self.bodies.reporter(pod))
                return
            message = f"The group of the pod is not updated: {error.code}: {error}"
            self.events.once(pod, "", "Warning", "ProviderUpdateFailed", message)
            if error.status not in _FINAL:
                self.queue.add_after(_key(pod), self._refusals.refused(uid))
                return
        self._sent[uid] = encoded

    async def _renew(self, pod: Pod, group: str) -> None:
        """Update files and environment of the group when what they follow from has changed; Azure cannot."""
        if self.bodies.is_strict():
            return
        seconds = await self._renewal.renew(
            pod, group, lambda message: self.events.once(pod, "", "Warning", "FailedMount", message)
        )
        if seconds is not None:
            self.queue.add_after(_key(pod), seconds)

    async def _remove_orphans(self, key: Key, pod: Pod | None) -> None:
        """Delete the groups of that name whose pod is gone or replaced: they would be billed for ever."""
        for uid, group in self._groups.named(key):
            if pod is None or pod["metadata"]["uid"] != uid:
                log.info("removing container group %s, whose pod is gone", group["name"])
                await self._aci.delete(group["name"], 0)
                self._groups.pop(uid)


def _key(pod: PartialObjectMetadata) -> Key:
    return pod["metadata"]["namespace"], pod["metadata"]["name"]


def _was_running(pod: Pod) -> bool:
    statuses = (pod.get("status") or {}).get("containerStatuses") or ()
    return any(item.get("containerID") for item in statuses)
