"""One container group, alive: from the first pull to the last exit, and again after this process was away.

The group's task brings up the network and the images, runs the init containers one after the other, then all others
side by side, each started again as the restart policy says. A container that is running already, or that ended while
nobody looked, is adopted and not run twice.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import sqlite3
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import NamedTuple

import aiohttp
import msgspec

from cumulet.common import clock
from cumulet.common.tasks import Backoff
from cumulet.instances.groups import probes
from cumulet.instances.groups.places import Places, remove_tree
from cumulet.instances.groups.pulls import credential_for, explain, success
from cumulet.instances.images.cache import Images, Pulled
from cumulet.instances.images.reference import parse
from cumulet.instances.images.registry import Login, PullError
from cumulet.instances.metering.meter import Meter
from cumulet.instances.model.properties import Container, Probe, virtual_network
from cumulet.instances.runtime.bundle import (
    BundleError,
    UserMapping,
    describe,
    forget_configuration,
    keep_process,
    owner_of,
    process_of,
)
from cumulet.instances.runtime.conmon import Runtime, RuntimeFailure
from cumulet.instances.sandbox.errors import SandboxError
from cumulet.instances.sandbox.mounts import mount_overlay, unmount, unmount_beneath
from cumulet.instances.sandbox.network import Network
from cumulet.instances.sandbox.user_namespaces import UserNamespaces
from cumulet.instances.sandbox.volumes import Volumes
from cumulet.instances.security.context import stored
from cumulet.instances.security.non_root import NonRootError, verify_non_root
from cumulet.instances.store.store import ContainerStatus, GroupRecord, State, Store
from cumulet.instances.streams.execution import run_in

log = logging.getLogger(__name__)

#: How much of a group's uid is in the names of its containers; groups that are there at once differ in it.
UID_PART = 13
_STABLE = 600.0
_ALWAYS, _NEVER = "Always", "Never"
#: In a container's folder: its volumes, until it has them.
_MOUNTS = "mounts"


class Services(NamedTuple):
    """What a group is given by its room. `changed` is called whenever its status is another."""

    store: Store
    images: Images
    network: Network
    runtime: Runtime
    meter: Meter
    session: aiohttp.ClientSession
    installation: str
    changed: Callable[[GroupRecord], None]
    users: UserNamespaces


class Group:
    """See the module."""

    def __init__(self, record: GroupRecord, places: Places, services: Services) -> None:
        self.record = record
        self._places = places
        self._services = services
        self._task: asyncio.Task[None] | None = None
        self._credentials_changed = asyncio.Event()
        self._ended: dict[str, asyncio.Event] = {}
        self._volumes = Volumes(places.folder, record.properties, places.before)
        self._namespace = Path()
        self._stopping = False
        self._patience: set[asyncio.Timeout] = set()

    # From outside.

    def start(self) -> None:
        """Begin, or go on where this process left off."""
        self._task = asyncio.create_task(self._run(), name=f"group {self.record.id}")
        self._task.add_done_callback(self._finished)

    def renew(self, record: GroupRecord) -> None:
        """The group was put again: from now on its new credentials are used, and a pull that waits is tried at once."""
        self.record = record
        self._credentials_changed.set()

    def detach(self) -> None:
        """This process ends; the containers run on."""
        if self._task is not None:
            self._task.cancel()

    async def destroy(self, grace: float) -> None:
        """Stop everything, the containers with `grace` seconds, and leave nothing but the bill."""
        self._stopping = True
        names = [container.name for container in self._all() if self._status(container.name).attempt]
        await asyncio.gather(*(self._terminate(name, grace, f"Stopping container {name}") for name in names))
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        for name in names:
            await self._services.runtime.remove(self.cid(name))
            unmount(self.root(name))
        await self._services.meter.stop(self.record.uid)
        await self._services.network.destroy(self.record.uid, self.record.status.ip)
        self._services.users.destroy(self.record.uid, self.record.status.ids)
        self._services.network.release(self.record.status.ip)
        for folder in (self._places.folder, self._places.before):
            await asyncio.to_thread(unmount_beneath, folder)
            await remove_tree(folder)
        await self._services.store.remove(self.record.uid)

    def hasten(self, grace: int) -> None:
        """Give containers that are asked to end `grace` seconds from now, where they have more."""
        limit = asyncio.get_running_loop().time() + grace
        for patience in self._patience:
            if (until := patience.when()) is not None and limit < until:
                patience.reschedule(limit)

    def cid(self, name: str) -> str:
        """The runtime's id of the newest attempt of a container."""
        status = self._status(name)
        mark = str(self._number(name)) if status.numbered else name
        return f"{self._services.installation}-{self.record.uid[:UID_PART]}-{mark}-{status.attempt}"

    @property
    def control_group(self) -> str:
        """The control group in which those of all containers are."""
        return f"cumulet-{self._services.installation}"

    def bundle(self, name: str) -> Path:
        """The folder of a container's newest attempt."""
        status = self._status(name)
        if not status.numbered:
            return self._places.attempt_before(name, status.attempt)
        return self._places.attempt(self._number(name), status.attempt)

    def root(self, name: str) -> Path:
        """Where the root of a container's newest attempt is mounted."""
        if not self.record.status.ids:
            return self.bundle(name) / "rootfs"
        container = f"{name}-{self._status(name).attempt}"
        return self._services.users.root(self.record.uid, self.record.status.ids, container)

    def log(self, name: str, *, previous: bool = False) -> Path:
        """The log of a container's newest attempt, or of the one before."""
        status = self._status(name)
        if not status.numbered:
            return self._places.log_before(name, status.attempt - previous)
        return self._places.log(self._number(name), status.attempt - previous)

    def process(self, name: str, command: list[str], *, tty: bool) -> bytes:
        """What the runtime is told of a further process in a container; it has secure values in it. Raises `OSError`."""
        return process_of(self.bundle(name), self._container(name), command, tty=tty)

    def ended(self, name: str) -> asyncio.Event:
        """Set while the newest attempt of a container has ended."""
        return self._ended.setdefault(name, asyncio.Event())

    def has(self, name: str) -> bool:
        """Whether the group has a container of that name."""
        return any(container.name == name for container in self._all())

    # The life of the group.

    def _all(self) -> list[Container]:
        return self.record.properties.all_containers

    def _number(self, name: str) -> int:
        return next(number for number, container in enumerate(self._all()) if container.name == name)

    def _container(self, name: str) -> Container:
        return self._all()[self._number(name)]

    def _status(self, name: str) -> ContainerStatus:
        return self.record.status.containers.setdefault(name, ContainerStatus())

    def _finished(self, task: asyncio.Task[None]) -> None:
        """Where not even the failure could be written: whoever looks is told, and the next start tries again."""
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("group %s failed", self.record.id, exc_info=error)
            self.record.status.state = self.record.status.provisioning_state = "Failed"
            self.record.status.note("Failed", f"Error: {_reason(error)}", warning=True)
            self._services.changed(self.record)

    async def _run(self) -> None:
        if self.record.status.state in ("Succeeded", "Failed"):
            for container in self._all():
                self.ended(container.name).set()
            return
        try:
            if self.record.flaw is not None:
                raise SandboxError(self.record.flaw)
            await self._live()
        except Exception as error:
            log.exception("group %s failed", self.record.id)
            await self._fail(_reason(error))

    async def _live(self) -> None:
        services, status = self._services, self.record.status
        await self._durably(lambda: services.meter.start(self.record))
        if not status.ip:
            status.ip = services.network.allocate()
        status.provisioning_state = "Creating"
        await self._isolate()
        await self._save()
        owner = services.users.network(self.record.uid, status.ids) if status.ids else None
        network, *_ = await asyncio.gather(
            services.network.create(self.record.uid, status.ip, virtual_network(self.record.properties), owner),
            asyncio.to_thread(self._volumes.make),
        )
        self._namespace = network
        for container in self.record.properties.init_containers:
            if not await self._run_init(container):
                await self._end("Failed")
                return
        # Where one of them fails in a way that nobody foresaw, the others are not left alone.
        async with asyncio.TaskGroup() as tasks:
            keeping = [tasks.create_task(self._keep(item)) for item in self.record.properties.containers]
        await self._end("Succeeded" if all(task.result() == 0 for task in keeping) else "Failed")

    async def _isolate(self) -> None:
        """Give the group a range of ids, where nothing of it runs yet, or no longer. Raises `SandboxError`."""
        services, status, uid = self._services, self.record.status, self.record.uid
        if services.network.is_there(uid):
            if not status.ids or services.users.is_there(uid):
                return  # it goes on as it was made: so does a group of an earlier version
            await services.network.destroy(uid, status.ip)
        services.users.destroy(uid, status.ids)
        status.ids = services.users.allocate(status.ids)

    async def _end(self, state: str, provisioning_state: str = "Succeeded") -> None:
        self.record.status.state = state
        self.record.status.provisioning_state = provisioning_state
        await self._durably(lambda: self._services.meter.stop(self.record.uid))
        await self._services.network.destroy(self.record.uid, self.record.status.ip)
        await self._save()

    async def _fail(self, reason: str) -> None:
        """End the group for a reason that is none of its containers', and say which."""
        self.record.status.note("Failed", f"Error: {reason}", warning=True)
        now = clock.rfc3339_micro()
        for container in self._all():
            status = self._status(container.name)
            if status.attempt:
                await self._services.runtime.kill(self.cid(container.name))
                await self._services.runtime.wait(self.cid(container.name), self.bundle(container.name))
            if status.current_state.state != "Terminated":
                start = status.current_state.start_time
                status.current_state = State("Terminated", "Error" if start else "StartError", start or now, now, 128)
                status.note("Failed", f"Error: {reason}", warning=True)
            status.ready = False
            self.ended(container.name).set()
        await self._end("Failed", "Failed")

    async def _run_init(self, container: Container) -> bool:
        """Run an init container until it succeeded; whether it did."""
        backoff = Backoff(10, 300)
        while True:
            code = await self._once(container)
            if code == 0:
                return True
            if self.record.properties.restart_policy == _NEVER:
                return False
            await self._back_off(container, backoff.next())

    async def _keep(self, container: Container) -> int:
        """Run a container as often as the restart policy says; the last exit code."""
        policy = self.record.properties.restart_policy
        backoff = Backoff(10, 300)
        while True:
            code = await self._once(container)
            if self._stopping or policy == _NEVER or (policy != _ALWAYS and code == 0):
                return code
            if self._status(container.name).current_state.lived > _STABLE:
                backoff.reset()
            await self._back_off(container, backoff.next())

    async def _back_off(self, container: Container, seconds: float) -> None:
        status = self._status(container.name)
        status.previous_state = status.current_state
        status.current_state = State("Waiting", "CrashLoopBackOff")
        status.note("BackOff", f"Back-off restarting failed container {container.name}", warning=True)
        await self._save()
        await asyncio.sleep(seconds)

    async def _once(self, container: Container) -> int:
        """One attempt, or the one that is under way; its exit code."""
        status = self._status(container.name)
        runtime = self._services.runtime
        adopted = (
            status.attempt > 0
            and status.current_state.state == "Running"
            and runtime.is_known(self.cid(container.name), self.bundle(container.name))
        )
        if adopted:
            forget_configuration(self.bundle(container.name), container)
        done = status.attempt and status.current_state.state == "Terminated" and status.current_state.exit_code == 0
        if done and container in self.record.properties.init_containers:
            return 0
        if not adopted:
            image = await self._have(container)
            try:
                await self._launch(container, image)
            except (BundleError, RuntimeFailure, SandboxError, OSError) as error:
                return await self._not_started(container, str(error))
        ended = self.ended(container.name)
        ended.clear()
        watching = [
            asyncio.create_task(self._watch(container, probe, kind))
            for kind, probe in (
                ("liveness", container.properties.liveness_probe),
                ("readiness", container.properties.readiness_probe),
            )
            if probe is not None
        ]
        try:
            code = await runtime.wait(self.cid(container.name), self.bundle(container.name))
        finally:
            for task in watching:
                task.cancel()
        await self._exited(container, code)
        return status.current_state.exit_code or 0

    async def _have(self, container: Container) -> Pulled:
        """Have an image that the container may run."""
        status, name = self._status(container.name), container.name
        context = stored(container.properties.security_context)
        backoff = Backoff(10, 300)
        while True:
            image = await self._pull(container)
            user = (image.config.get("config") or {}).get("User") or ""
            try:
                verify_non_root(context, str(user), name, self.record.tags)
            except NonRootError as error:
                status.current_state = State("Waiting", "CreateContainerConfigError")
                status.note("Failed", f"Error: {error}", warning=True)
                await self._save()
                await asyncio.sleep(backoff.next())
            else:
                return image

    async def _pull(self, container: Container) -> Pulled:
        """Have the image, however long it takes: what stands in the way can be mended meanwhile."""
        name, image = container.name, container.properties.image
        status = self._status(name)
        backoff = Backoff(10, 300)
        while True:
            self._credentials_changed.clear()
            credential = credential_for(image, self.record.properties.image_registry_credentials)
            status.note("Pulling", f'Pulling image "{image}"')
            await self._save()
            try:
                login = Login(credential.username, credential.password or "") if credential else None
                pulled = await self._services.images.pull(image, login)
            except PullError as error:
                message = explain(image, credential, str(error))
                status.current_state = State("Waiting", "ErrImagePull")
                status.note("Failed", message, warning=True)
                status.note("Failed", "Error: ErrImagePull", warning=True)
                await self._save()
                status.current_state = State("Waiting", "ImagePullBackOff")
                status.note("BackOff", f'Back-off pulling image "{image}": {message}')
                status.note("Failed", "Error: ImagePullBackOff", warning=True)
                await self._save()
                try:
                    async with asyncio.timeout(backoff.next()):
                        await self._credentials_changed.wait()
                    backoff.reset()
                except TimeoutError:
                    pass
                continue
            status.note("Pulled", success(image, pulled))
            registry = parse(image)
            status.image_id = f"{registry.registry}/{registry.repository}@{pulled.digest}"
            return pulled

    async def _launch(self, container: Container, image: Pulled) -> None:
        """Make the container's root and start it."""
        name, status = container.name, self._status(container.name)
        if status.attempt:
            await self._clear(name, status)
            status.restart_count += 1
        status.attempt, status.numbered = status.attempt + 1, True
        await self._save()  # the number is on disk before anything has it in its name
        bundle, log = self.bundle(name), self.log(name)
        configuration, owner = await asyncio.to_thread(self._prepare, container, image, bundle)
        runtime = self._services.runtime
        try:
            await runtime.create(self.cid(name), bundle, log, configuration)
        finally:
            # The container has what is mounted there, in a mount namespace of its own.
            await asyncio.to_thread(unmount_beneath, bundle / _MOUNTS)
        runtime.give_output(bundle, *owner)
        status.note("Created", f"Created container: {name}")
        await runtime.start(self.cid(name))
        status.note("Started", f"Started container {name}")
        status.current_state = State("Running", "", start_time=clock.rfc3339_micro())
        status.ready = container.properties.readiness_probe is None
        await self._save()

    def _prepare(self, container: Container, image: Pulled, bundle: Path) -> tuple[bytes, tuple[int, int]]:
        """Make a container's root and mounts, on a thread; its configuration, and the owner of its process on this machine.

        Raises `BundleError`, `SandboxError`, `OSError`.
        """
        for part in ("rootfs", "upper", "work"):
            (bundle / part).mkdir(parents=True, exist_ok=True)
        uid, ids, users = self.record.uid, self.record.status.ids, self._services.users
        root = self.root(container.name)
        if ids:
            users.mount_root(uid, ids, image.layers, bundle, root, self._places.folder / "layers")
        else:
            mount_overlay(image.layers, bundle / "upper", bundle / "work", root)
        hostname = self.record.properties.hostname or self.record.id.rsplit("/", 1)[-1]
        files = self._volumes.files(hostname, self.record.status.ip, self.record.properties.dns_config)
        binds = [*files, *self._volumes.mount(container, bundle / _MOUNTS)]
        if ids:
            binds = users.map_binds(uid, ids, binds, bundle / _MOUNTS / "mapped")
        mapping = UserMapping(users.path(uid), ids) if ids else None
        document = describe(
            root,
            self.record.properties,
            container,
            image.config,
            namespace=self._namespace,
            hostname=hostname,
            cgroup=f"/{self.control_group}/{self.cid(container.name)}",
            mounts=binds,
            users=mapping,
        )
        keep_process(bundle, document["process"], container)
        return msgspec.json.encode(document), owner_of(document["process"], mapping)

    async def _clear(self, name: str, status: ContainerStatus) -> None:
        """Remove an attempt that has ended, but for its log; the log before it goes."""
        await self._services.runtime.remove(self.cid(name))
        bundle = self.bundle(name)
        unmount(self.root(name))
        await asyncio.to_thread(unmount_beneath, bundle)
        await remove_tree(bundle)
        self.log(name, previous=True).unlink(missing_ok=True)
        if not status.numbered and self.log(name).exists():
            kept = self._places.log(self._number(name), status.attempt)
            kept.parent.mkdir(parents=True, exist_ok=True)
            self.log(name).rename(kept)

    async def _not_started(self, container: Container, reason: str) -> int:
        status = self._status(container.name)
        now = clock.rfc3339_micro()
        status.note("Failed", f"Error: {reason}", warning=True)
        status.current_state = State("Terminated", "StartError", now, now, 128)
        status.ready = False
        await self._save()
        return 128

    async def _exited(self, container: Container, code: int | None) -> None:
        status = self._status(container.name)
        killed = self._services.runtime.was_killed_for_memory(self.bundle(container.name))
        detail = "OOMKilled" if killed else "Completed" if code == 0 else "Error"
        if code is None:
            # Nobody was there to see it, as after the machine went down.
            code, detail = 137, "ContainerStatusUnknown"
        start = status.current_state.start_time
        status.current_state = State("Terminated", detail, start, clock.rfc3339_micro(), code)
        status.ready = False
        self.ended(container.name).set()
        await self._save()

    async def _watch(self, container: Container, probe: Probe, kind: str) -> None:
        status = self._status(container.name)

        async def execute(command: list[str]) -> int:
            description = self.process(container.name, command, tty=False)
            return await run_in(self._services.runtime, self.cid(container.name), description)

        failed = asyncio.Event()

        def heard(well: bool) -> None:
            if kind == "readiness" and status.ready is not well:
                status.ready = well
                self._services.changed(self.record)
            elif kind == "liveness" and not well:
                failed.set()
            if not well:
                status.note("Unhealthy", f"{kind.capitalize()} probe failed", warning=True)
                self._services.changed(self.record)

        asking = asyncio.create_task(
            probes.keep_asking(probe, self.record.status.ip, execute, self._services.session, heard)
        )
        try:
            await failed.wait()
            await self._terminate(
                container.name,
                self.record.properties.termination_grace_period_seconds,
                f"Container {container.name} failed liveness probe, will be restarted",
            )
        finally:
            asking.cancel()

    async def _terminate(self, name: str, grace: float, why: str) -> None:
        """Ask a container to end, and make it end when its time is over."""
        runtime, bundle, cid = self._services.runtime, self.bundle(name), self.cid(name)
        if not runtime.is_known(cid, bundle):
            return
        self._status(name).note("Killing", why)
        self._services.changed(self.record)
        if grace > 0:
            await runtime.kill(cid, signal.SIGTERM)
            try:
                async with asyncio.timeout(grace) as patience:
                    self._patience.add(patience)
                    await runtime.wait(cid, bundle)
                return
            except TimeoutError:
                pass
            finally:
                self._patience.discard(patience)
        await runtime.kill(cid)
        await runtime.wait(cid, bundle)

    async def _save(self) -> None:
        status = self.record.status
        running = [self._status(item.name).current_state.state for item in self.record.properties.containers]
        if status.state in ("Pending", "Running"):
            status.state = "Running" if "Running" in running else status.state
        if "Running" in running:
            status.provisioning_state = "Succeeded"
        await self._durably(lambda: self._services.store.put_status(self.record))
        self._services.changed(self.record)  # told only when it is durable

    async def _durably(self, write: Callable[[], Awaitable[None]]) -> None:
        """Write, and where the disk takes nothing, as when it is full, wait until it does: what runs goes on."""
        backoff = Backoff(0.5, 30)
        while True:
            try:
                await write()
            except sqlite3.OperationalError as error:
                log.warning("group %s cannot be written: %s", self.record.id, error)
                await backoff.wait()
            else:
                return


def _reason(error: BaseException) -> str:
    """What is told of a failure; of one that nobody foresaw only its kind, as its words may have secrets in them."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    if isinstance(error, (SandboxError, OSError)):
        return str(error)
    return f"an internal error ({type(error).__name__}); the log of the room 'instances' has more"
