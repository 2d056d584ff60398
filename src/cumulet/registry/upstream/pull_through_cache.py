"""Pull-through cache rules: repositories that fill themselves from another registry when somebody pulls from them.

Source: ACR's documentation, "Artifact cache". A manifest is stored when it is asked for, and a blob when it is; a tag is
compared with the other registry's once a minute, and where that does not answer what is here is served.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import ClassVar

import msgspec

from cumulet.common.ascii import fold
from cumulet.registry.access.tokens import Tokens
from cumulet.registry.catalog.blob_links import Links
from cumulet.registry.catalog.records import Parts, Registry
from cumulet.registry.catalog.running_pushes import RunningPushes
from cumulet.registry.catalog.store import Catalog
from cumulet.registry.content.keyed_lock import KeyedLock
from cumulet.registry.oci import names
from cumulet.registry.oci.errors import OciError
from cumulet.registry.upstream.client import UpstreamError, as_oci
from cumulet.registry.upstream.image_copy import Elsewhere, read

log = logging.getLogger(__name__)

#: Seconds for which a tag is believed.
_FRESH = 60.0
_REMEMBERED = 10_000


class CredentialSet(msgspec.Struct, frozen=True):
    """A user name and password for another registry; `sealed` is both of them, as JSON."""

    segment: ClassVar[str] = "credentialSets"

    name: str
    created: str
    login_server: str
    sealed: str


class CacheRule(msgspec.Struct, frozen=True):
    """`source` is `server/repository`; it and `target` may both end in `/*`."""

    segment: ClassVar[str] = "cacheRules"

    name: str
    created: str
    source: str
    target: str
    credential_set: str = ""

    @property
    def server(self) -> str:
        """The other registry."""
        return self.source.partition("/")[0]

    def source_of(self, repository: str) -> str | None:
        """The other registry's repository that one of ours is filled from; `None` where the rule is not about it."""
        source, target = self.source.partition("/")[2], self.target
        if not target.endswith("*"):
            return source if repository == target else None
        prefix = target.removesuffix("*")
        rest = repository.removeprefix(prefix)
        return source.removesuffix("*") + rest if repository.startswith(prefix) and rest else None


class PullThrough:
    """`now` is a monotonic clock in seconds."""

    def __init__(
        self,
        catalog: Catalog,
        links: Links,
        pushes: RunningPushes,
        tokens: Tokens,
        elsewhere: Elsewhere,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._catalog = catalog
        self._links = links
        self._pushes = pushes
        self._tokens = tokens
        self._elsewhere = elsewhere
        self._now = now
        self._rules: dict[tuple[str, str], list[CacheRule]] = {}
        self._checked: dict[tuple[str, str, str], float] = {}
        self._fetching = KeyedLock()

    def changed(self) -> None:
        """Rules or credentials were: read them again."""
        self._rules.clear()
        self._checked.clear()

    def rule(self, registry: Registry, repository: str) -> CacheRule | None:
        """The rule by which a repository is filled: an exact one, else that with the longest pattern."""
        key = (registry.key, registry.created)
        rules = self._rules.get(key)
        if rules is None:
            found = self._catalog.resources.list(registry.key, CacheRule)
            rules = self._rules[key] = sorted(found, key=lambda rule: (rule.target.endswith("*"), -len(rule.target)))
        return next((rule for rule in rules if rule.source_of(repository) is not None), None)

    async def manifest(self, registry: Registry, repository: str, reference: str, principal: str) -> None:
        """Have a manifest here, as new as it is there. Raises `OciError` where it is neither here nor to be had."""
        rule = self.rule(registry, repository)
        if rule is None:
            return
        reference = names.reference(reference)
        key = (registry.key, repository, reference)
        async with self._fetching.lock("\n".join(key)):
            here = self._catalog.manifest(*key)
            if here is not None and (names.is_digest(reference) or self._is_fresh(key)):
                return
            try:
                with self._pushes.request((registry.key, repository), principal):
                    await self._fetch_manifest(registry, repository, reference, rule)
            except UpstreamError as error:
                if here is None:
                    raise as_oci(error) from None
                log.warning(
                    "a tag is served as it was: %s", error, extra={"repository": repository, "tag": reference}
                )
            self._note(key)

    async def blob(self, registry: Registry, repository: str, text: str, principal: str) -> None:
        """Have a blob here. Raises `OciError` where it is neither here nor to be had."""
        rule = self.rule(registry, repository)
        source = rule.source_of(repository) if rule is not None else None
        if rule is None or source is None:
            return
        digest = names.digest(text)
        async with self._fetching.lock("\n".join((registry.key, repository, digest))):
            if self._catalog.blob(registry.key, repository, digest) is not None:
                return
            try:
                with self._pushes.request((registry.key, repository), principal):
                    origin = self._elsewhere(rule.server, self._credentials(registry, rule))
                    await origin.blob(source, digest, registry, repository)
            except UpstreamError as error:
                if error.status == 404:
                    return
                raise as_oci(error) from None

    async def _fetch_manifest(self, registry: Registry, repository: str, reference: str, rule: CacheRule) -> None:
        origin = self._elsewhere(rule.server, self._credentials(registry, rule))
        fetched = await origin.manifest(rule.source_of(repository) or "", reference)
        try:
            manifest, parts = read(fetched)
        except OciError as error:
            raise UpstreamError(rule.server, 502, str(error)) from None
        tags = [] if names.is_digest(reference) else [reference]
        # What it names comes when it is asked for.
        await self._catalog.put_manifest(registry.key, repository, manifest, Parts(parts.named, ()), tags)

    def _credentials(self, registry: Registry, rule: CacheRule) -> tuple[str, str] | None:
        if not rule.credential_set:
            return None
        found = self._catalog.resources.find(registry.key, CredentialSet, rule.credential_set)
        if found is None:
            raise UpstreamError(rule.server, 401, f"the credential set '{rule.credential_set}' was deleted")
        return open_credentials(self._tokens, registry, found)

    def _is_fresh(self, key: tuple[str, str, str]) -> bool:
        return self._now() - self._checked.get(key, -_FRESH) < _FRESH

    def _note(self, key: tuple[str, str, str]) -> None:
        if len(self._checked) >= _REMEMBERED:
            self._checked.clear()
        self._checked[key] = self._now()


def seal_credentials(tokens: Tokens, registry: Registry, name: str, user: str, password: str) -> str:
    """A user name and password, sealed for their credential set."""
    return tokens.seal(_place(registry, name), msgspec.json.encode((user, password)).decode())


def open_credentials(tokens: Tokens, registry: Registry, found: CredentialSet) -> tuple[str, str]:
    """The reverse."""
    return msgspec.json.decode(tokens.open(_place(registry, found.name), found.sealed), type=tuple[str, str])


def _place(registry: Registry, name: str) -> str:
    return f"credential set\n{registry.key}\n{fold(name)}"
