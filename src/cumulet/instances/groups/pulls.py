"""Pulls the images of a group's containers, and repeats each pull until it succeeds."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable

from cumulet.common.image_reference import Reference, parse
from cumulet.common.tasks import Backoff
from cumulet.instances.groups.attempts import Attempts
from cumulet.instances.groups.logins import Logins
from cumulet.instances.groups.pull_credentials import credentials_for, subject_of
from cumulet.instances.groups.pull_messages import Failure, explain, never, present, success
from cumulet.instances.groups.services import Save
from cumulet.instances.images.cache import Images, Pulled
from cumulet.instances.images.errors import OF_CREDENTIALS, PullError
from cumulet.instances.images.progress import Progress, report_interval
from cumulet.instances.model.properties import Container, Credential
from cumulet.instances.security.context import stored
from cumulet.instances.security.non_root import NonRootError, verify_non_root
from cumulet.instances.store.records import ContainerStatus, GroupRecord, State

log = logging.getLogger(__name__)

#: Seconds before the second pull, and at most between two.
_FIRST, _LONGEST = 10, 300
#: States whose message is the progress of a pull; others keep what they report.
_CREATING = ("", "ContainerCreating", "PodInitializing")


class Pulls:
    """The pulls of one group, with the group's own credentials."""

    def __init__(
        self,
        record: GroupRecord,
        attempts: Attempts,
        images: Images,
        logins: Logins,
        save: Save,
        changed: Callable[[GroupRecord], None],
    ) -> None:
        self._record = record
        self._attempts = attempts
        self._images = images
        self._logins = logins
        self._save = save
        self._changed = changed
        self._credentials_changed = asyncio.Event()

    def renew(self) -> None:
        """Repeat a failed pull at once: the group has new credentials."""
        self._credentials_changed.set()

    async def image(self, container: Container) -> Pulled:
        """Return the image of a container, once it is here and the container may run it (`runAsNonRoot`)."""
        name = container.name
        status = self._attempts.status(name)
        context = stored(container.properties.security_context)
        backoff = Backoff(_FIRST, _LONGEST)
        while True:
            image = await self._ensure(container)
            try:
                verify_non_root(context, image.config.user or "", name, self._record.tags)
            except NonRootError as error:
                status.current_state = State("Waiting", "CreateContainerConfigError")
                status.add_event("Failed", f"Error: {error}", warning=True)
                await self._save()
                await asyncio.sleep(backoff.next())
            else:
                return image

    async def _ensure(self, container: Container) -> Pulled:
        """Return an image by the container's pull policy, after as many pulls as it takes.

        The user may remove the cause of a failure in the meantime.
        """
        image, policy = container.properties.image, container.properties.image_pull_policy
        reference = parse(image)
        status = self._attempts.status(container.name)
        backoff = Backoff(_FIRST, _LONGEST)
        while True:
            self._credentials_changed.clear()
            if policy in ("IfNotPresent", "Never") and (here := self._here(reference)) is not None:
                status.add_event("Pulled", present(image, here))
                status.image_id = here.id
                return here
            if policy == "Never":
                await self._wait_for_image(image, reference, status)
                continue
            status.add_event("Pulling", f'Pulling image "{image}"')
            await self._save()
            pulled, failures = await self._pull(image, reference, status)
            if pulled is not None:
                # Nothing waits between the end of the pull and this line, which keeps the image from eviction.
                status.image_id = pulled.id
                status.add_event("Pulled", success(image, pulled))
                return pulled
            await self._report(image, explain(image, reference, failures), status)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(backoff.next()):
                    await self._credentials_changed.wait()
                backoff.reset()

    def _credentials(self, reference: Reference) -> list[Credential]:
        return credentials_for(reference, self._record.properties.image_registry_credentials)

    async def _pull(
        self, image: str, reference: Reference, status: ContainerStatus
    ) -> tuple[Pulled | None, list[Failure]]:
        """Pull with each of the credentials in turn, as a kubelet does, or without any; return the image or the failures."""
        failures: list[Failure] = []
        identity = self._record.envelope.identity
        for credential in self._credentials(reference) or (None,):
            progress = Progress(image)
            try:
                login = await self._logins.login(credential, identity)
                subject = subject_of(credential, identity) if credential is not None else None
                async with self._shown(progress, status):
                    return await self._images.pull(reference, login, subject, progress), failures
            except PullError as error:
                failures.append(Failure(credential, error))
                if error.fault not in OF_CREDENTIALS:
                    break
            except Exception as error:
                # Registries are not trusted: no answer may end the group.
                log.exception("the pull of %s failed", reference)
                failures.append(Failure(credential, PullError(f"an internal error ({type(error).__name__})")))
                break
        return None, failures

    async def _report(self, image: str, message: str, status: ContainerStatus) -> None:
        status.current_state = State("Waiting", "ErrImagePull")
        status.add_event("Failed", message, warning=True)
        status.add_event("Failed", "Error: ErrImagePull", warning=True)
        await self._save()
        status.current_state = State("Waiting", "ImagePullBackOff")
        status.add_event("BackOff", f'Back-off pulling image "{image}": {message}')
        status.add_event("Failed", "Error: ImagePullBackOff", warning=True)
        await self._save()

    async def _wait_for_image(self, image: str, reference: Reference, status: ContainerStatus) -> None:
        """Report that the image is not here or is another's, and wait until another group pulls one, or for credentials."""
        message = never(image, self._images.find(reference) is not None)
        status.current_state = State("Waiting", "ErrImageNeverPull", message=message)
        status.add_event("ErrImageNeverPull", message, warning=True)
        status.add_event("Failed", "Error: ErrImageNeverPull", warning=True)
        await self._save()
        while self._here(reference) is None:
            waits = [
                asyncio.ensure_future(event.wait()) for event in (self._images.changed, self._credentials_changed)
            ]
            try:
                await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for wait in waits:
                    wait.cancel()
            self._credentials_changed.clear()
        status.current_state = State("Waiting")

    def _here(self, reference: Reference) -> Pulled | None:
        """Return an image that is here, and that the group has access to."""
        identity = self._record.envelope.identity
        subjects = [subject_of(credential, identity) for credential in self._credentials(reference)]
        return self._images.cached(reference, subjects)

    @contextlib.asynccontextmanager
    async def _shown(self, progress: Progress, status: ContainerStatus) -> AsyncIterator[None]:
        """Show the progress of a pull in the container's state, from the first second on."""
        before = status.current_state
        showing = asyncio.create_task(self._show(progress, status))
        try:
            yield
        finally:
            showing.cancel()
            if status.current_state.message:
                status.current_state = before

    async def _show(self, progress: Progress, status: ContainerStatus) -> None:
        state = status.current_state
        if state.state != "Waiting" or state.detail_status not in _CREATING:
            return
        while True:
            await asyncio.sleep(report_interval(len(self._images.pulls)))
            message = str(progress)
            if message != status.current_state.message:
                status.current_state = State("Waiting", state.detail_status, message=message)
                self._changed(self._record)
