"""`registries/cacheRules` and `registries/credentialSets` (REST reference 2023-07-01)."""

from __future__ import annotations

import re
from typing import Any

import msgspec

from cumulet.common import clock
from cumulet.common.arm import ArmError
from cumulet.common.ascii import fold
from cumulet.registry.access.tokens import Tokens
from cumulet.registry.catalog.store import Catalog, Registry
from cumulet.registry.oci import names
from cumulet.registry.oci.errors import OciError
from cumulet.registry.provider.child_resources import Body, Children
from cumulet.registry.upstream.client import is_server
from cumulet.registry.upstream.pull_through_cache import CacheRule, CredentialSet, PullThrough, seal_credentials


class _Login(msgspec.Struct, rename="camel"):
    """Azure names secrets of a key vault; there is none here, so the user name and password are given themselves."""

    name: str = "Credential1"
    username: str | None = None
    password: str | None = None
    username_secret_identifier: str | None = None
    password_secret_identifier: str | None = None


class CredentialSets(Children[CredentialSet]):
    """What was given is kept sealed and never shown."""

    kind = CredentialSet
    name = re.compile(r"[a-zA-Z0-9-]{5,50}")

    def __init__(self, catalog: Catalog, tokens: Tokens, pull_through: PullThrough) -> None:
        super().__init__(catalog)
        self._tokens = tokens
        self._pull_through = pull_through

    async def read(self, registry: Registry, name: str, body: Body, existing: CredentialSet | None) -> CredentialSet:
        """The credentials that there were stay where none are given."""
        server = fold(body.get("loginServer", str, existing.login_server if existing else ""))
        if not is_server(server):
            raise _invalid("loginServer", f"'{server[:200]}' is not a server.")
        logins = body.get("authCredentials", list[_Login], [])
        sealed = existing.sealed if existing else ""
        if logins:
            login = logins[0]
            if login.username is None or login.password is None:
                raise _invalid(
                    "authCredentials",
                    "There is no key vault here: give username and password themselves, in authCredentials[0].",
                )
            sealed = seal_credentials(self._tokens, registry, name, login.username, login.password)
        if not sealed:
            raise _invalid("authCredentials", "authCredentials is missing.")
        return CredentialSet(name, existing.created if existing else clock.rfc3339_micro(), server, sealed)

    def properties(self, registry: Registry, resource: CredentialSet) -> dict[str, Any]:
        """In the REST reference's names."""
        return {
            "loginServer": resource.login_server,
            "creationDate": resource.created,
            "authCredentials": [{"name": "Credential1"}],
        }

    async def changed(self) -> None:
        """From now on others are shown to the server."""
        self._pull_through.changed()


class CacheRules(Children[CacheRule]):
    """No two have the same target."""

    kind = CacheRule
    name = re.compile(r"[a-zA-Z0-9-]{5,50}")

    def __init__(self, catalog: Catalog, pull_through: PullThrough) -> None:
        super().__init__(catalog)
        self._pull_through = pull_through

    async def read(self, registry: Registry, name: str, body: Body, existing: CacheRule | None) -> CacheRule:
        """A source and target, and perhaps a credential set for the source's server."""
        source = body.get("sourceRepository", str, existing.source if existing else "")
        target = body.get("targetRepository", str, existing.target if existing else "")
        server, _, repository = source.partition("/")
        if not is_server(server) or not _is_pattern(repository):
            raise _invalid("sourceRepository", f"'{source[:300]}' is not server/repository, or server/prefix/*.")
        if not _is_pattern(target):
            raise _invalid("targetRepository", f"'{target[:300]}' is not a repository, or prefix/*.")
        if source.endswith("*") != target.endswith("*"):
            raise _invalid("targetRepository", "Either both of source and target end in * or neither.")
        for other in self.all(registry):
            if other.target == target and fold(other.name) != fold(name):
                raise ArmError(409, "Conflict", f"The cache rule '{other.name}' has the target '{target}' already.")
        credentials = existing.credential_set if existing else ""
        if body.has("credentialSetResourceId"):
            credentials = self._credential_set(registry, body.get("credentialSetResourceId", str, ""), server)
        created = existing.created if existing else clock.rfc3339_micro()
        return CacheRule(name, created, source, target, credentials)

    def properties(self, registry: Registry, resource: CacheRule) -> dict[str, Any]:
        """In the REST reference's names."""
        found = f"{registry.id}/credentialSets/{resource.credential_set}" if resource.credential_set else None
        return {
            "credentialSetResourceId": found,
            "sourceRepository": resource.source,
            "targetRepository": resource.target,
            "creationDate": resource.created,
        }

    async def changed(self) -> None:
        """From now on another rule is followed."""
        self._pull_through.changed()

    def _credential_set(self, registry: Registry, text: str, server: str) -> str:
        """The name of the credential set of an id, in the same registry and for the source's server."""
        prefix, _, name = text.rpartition("/")
        found = self._resources.find(registry.key, CredentialSet, name)
        if fold(prefix) != fold(f"{registry.id}/credentialSets") or found is None:
            raise _invalid("credentialSetResourceId", f"The credential set '{text[:300]}' was not found.")
        if found.login_server != fold(server):
            raise _invalid(
                "credentialSetResourceId",
                f"The credential set '{name}' is for '{found.login_server}', not '{server}'.",
            )
        return found.name


def _is_pattern(text: str) -> bool:
    """Whether a text is a repository, or the beginning of some, up to a slash, and `*`."""
    plain = text.removesuffix("/*")
    if plain == "*":
        return True
    try:
        names.repository(plain)
    except OciError:
        return False
    return True


def _invalid(field: str, message: str) -> ArmError:
    return ArmError(400, "InvalidCacheRule", message, target=f"properties.{field}")
