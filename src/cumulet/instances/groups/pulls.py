"""Pulls the images of a group's containers, and repeats each pull until it succeeds."""

from __future__ import annotations

import asyncio

from cumulet.common.tasks import Backoff
from cumulet.instances.groups.attempts import Attempts
from cumulet.instances.groups.logins import Logins
from cumulet.instances.groups.pull_messages import credential_for, explain, success
from cumulet.instances.groups.services import Save
from cumulet.instances.images.cache import Images, Pulled
from cumulet.instances.images.reference import parse
from cumulet.instances.images.registry import PullError
from cumulet.instances.model.properties import Container
from cumulet.instances.security.context import stored
from cumulet.instances.security.non_root import NonRootError, verify_non_root
from cumulet.instances.store.records import GroupRecord, State

#: Seconds before the second pull, and at most between two.
_FIRST, _LONGEST = 10, 300


class Pulls:
    """The pulls of one group, with the group's own credentials."""

    def __init__(self, record: GroupRecord, attempts: Attempts, images: Images, logins: Logins, save: Save) -> None:
        self._record = record
        self._attempts = attempts
        self._images = images
        self._logins = logins
        self._save = save
        self._credentials_changed = asyncio.Event()

    def renew(self) -> None:
        """Repeat a failed pull at once: the group has new credentials."""
        self._credentials_changed.set()

    async def image(self, container: Container) -> Pulled:
        """Return the image of a container, once it is pulled and the container may run it (`runAsNonRoot`)."""
        name = container.name
        status = self._attempts.status(name)
        context = stored(container.properties.security_context)
        backoff = Backoff(_FIRST, _LONGEST)
        while True:
            image = await self._pull(container)
            try:
                verify_non_root(context, image.config.user or "", name, self._record.tags)
            except NonRootError as error:
                status.current_state = State("Waiting", "CreateContainerConfigError")
                status.add_event("Failed", f"Error: {error}", warning=True)
                await self._save()
                await asyncio.sleep(backoff.next())
            else:
                return image

    async def _pull(self, container: Container) -> Pulled:
        """Pull an image, repeatedly: the user may remove the cause of a failure in the meantime."""
        name, image = container.name, container.properties.image
        status = self._attempts.status(name)
        backoff = Backoff(_FIRST, _LONGEST)
        while True:
            self._credentials_changed.clear()
            credential = credential_for(image, self._record.properties.image_registry_credentials)
            status.add_event("Pulling", f'Pulling image "{image}"')
            await self._save()
            try:
                login = await self._logins.login(credential, self._record.envelope.identity)
                pulled = await self._images.pull(image, login)
            except PullError as error:
                message = explain(image, credential, str(error))
                status.current_state = State("Waiting", "ErrImagePull")
                status.add_event("Failed", message, warning=True)
                status.add_event("Failed", "Error: ErrImagePull", warning=True)
                await self._save()
                status.current_state = State("Waiting", "ImagePullBackOff")
                status.add_event("BackOff", f'Back-off pulling image "{image}": {message}')
                status.add_event("Failed", "Error: ImagePullBackOff", warning=True)
                await self._save()
                try:
                    async with asyncio.timeout(backoff.next()):
                        await self._credentials_changed.wait()
                    backoff.reset()
                except TimeoutError:
                    pass
                continue
            status.add_event("Pulled", success(image, pulled))
            registry = parse(image)
            status.image_id = f"{registry.registry}/{registry.repository}@{pulled.digest}"
            return pulled
