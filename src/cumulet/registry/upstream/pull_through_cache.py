"""Pull-through cache rules: repositories that are filled from another registry on pull.

Source: ACR's documentation, "Artifact cache". A manifest or blob is stored on its first pull. A tag is compared with the
other registry at most once a minute. Where that registry does not answer, the stored manifest is served.
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

#: Seconds after which a tag is compared again.
_FRESH = 60.0
_REMEMBERED = 10_000


class CredentialSet(msgspec.Struct, frozen=True):
    """A user name and password for another registry. `sealed` is both of them, as sealed JSON."""

    segment: ClassVar[str] = "credentialSets"

    name: str
    created: str
    login_server: str
    sealed: str


class CacheRule(msgspec.Struct, frozen=True):
    """A cache rule. `source` is `server/repository`. Either both `source` and `target` end in `/*`, or neither does."""

    segment: ClassVar[str] = "cacheRules"

    name: str
    created: str
    source: str
    target: str
    credential_set: str = ""

    @property
    def server(self) -> str:
        """The server of the other registry."""
        return self.source.partition("/")[0]

    def source_of(self, repository: str) -> str | None:
        """The repository of the other registry that fills `repository`, or `None` where the rule does not apply."""
        source, target = self.source.partition("/")[2], self.target
        if not target.endswith("*"):
            return source if repository == target else None
        prefix = target.removesuffix("*")
        rest = repository.removeprefix(prefix)
        return source.removesuffix("*") + rest if repository.startswith(prefix) and rest else None


class PullThrough:
    """Applies the cache rules. `now` is a monotonic clock in seconds."""

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
        """Reload the rules and credentials, after a change of them."""
        self._rules.clear()
        self._checked.clear()

    def rule(self, registry: Registry, repository: str) -> CacheRule | None:
        """The rule for a repository, or `None`: an exact rule, or else the one with the longest pattern."""
        key = (registry.key, registry.created)
        rules = self._rules.get(key)
        if rules is None:
            stored = self._catalog.resources.list(registry.key, CacheRule)
            rules = self._rules[key] = sorted(stored, key=lambda rule: (rule.target.endswith("*"), -len(rule.target)))
        return next((rule for rule in rules if rule.source_of(repository) is not None), None)

    async def manifest(self, registry: Registry, repository: str, reference: str, principal: str) -> None:
        """Store or refresh a manifest. Raises `OciError` where it is not stored and the other registry fails."""
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
                    "a cached tag is served without a check: %s",
                    error,
                    extra={"repository": repository, "tag": reference},
                )
            self._mark_checked(key)

    async def blob(self, registry: Registry, repository: str, text: str, principal: str) -> None:
        """Store a blob. Raises `OciError` where it is not stored and the other registry fails."""
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
        # Its parts are stored when they are pulled.
        await self._catalog.put_manifest(registry.key, repository, manifest, Parts(parts.named, ()), tags)

    def _credentials(self, registry: Registry, rule: CacheRule) -> tuple[str, str] | None:
        if not rule.credential_set:
            return None
        credential_set = self._catalog.resources.find(registry.key, CredentialSet, rule.credential_set)
        if credential_set is None:
            raise UpstreamError(rule.server, 401, f"the credential set '{rule.credential_set}' was deleted")
        return open_credentials(self._tokens, registry, credential_set)

    def _is_fresh(self, key: tuple[str, str, str]) -> bool:
        return self._now() - self._checked.get(key, -_FRESH) < _FRESH

    def _mark_checked(self, key: tuple[str, str, str]) -> None:
        if len(self._checked) >= _REMEMBERED:
            self._checked.clear()
        self._checked[key] = self._now()


def seal_credentials(tokens: Tokens, registry: Registry, name: str, user: str, password: str) -> str:
    """Seal a user name and password for their credential set."""
    return tokens.seal(_place(registry, name), msgspec.json.encode((user, password)).decode())


def open_credentials(tokens: Tokens, registry: Registry, credential_set: CredentialSet) -> tuple[str, str]:
    """The user name and password of a credential set. Raises `SealError`."""
    text = tokens.open(_place(registry, credential_set.name), credential_set.sealed)
    return msgspec.json.decode(text, type=tuple[str, str])


def _place(registry: Registry, name: str) -> str:
    return f"credential set\n{registry.key}\n{fold(name)}"
