"""`registries/cacheRules` and `registries/credentialSets` (REST reference 2023-07-01)."""

from __future__ import annotations

import re

import msgspec
from msgspec import UNSET, UnsetType

from cumulet.common import clock
from cumulet.common.arm import ArmError
from cumulet.common.ascii import fold
from cumulet.registry.access.tokens import Tokens
from cumulet.registry.catalog.store import Catalog, Registry
from cumulet.registry.oci import names
from cumulet.registry.oci.errors import OciError
from cumulet.registry.provider.bodies import Properties, given
from cumulet.registry.provider.child_resources import Body, Children
from cumulet.registry.upstream.client import is_server
from cumulet.registry.upstream.pull_through_cache import CacheRule, CredentialSet, PullThrough, seal_credentials


class _Login(msgspec.Struct, rename="camel"):
    """A credential. Azure takes the ids of key vault secrets; without a key vault, a request has the secrets themselves."""

    name: str = "Credential1"
    username: str | None = None
    password: str | None = None
    username_secret_identifier: str | None = None
    password_secret_identifier: str | None = None


class _CredentialSetRequest(msgspec.Struct, rename="camel"):
    login_server: str | UnsetType = UNSET
    auth_credentials: list[_Login] | UnsetType = UNSET


class _CredentialName(msgspec.Struct):
    name: str = "Credential1"


class _CredentialSetProperties(Properties):
    login_server: str
    creation_date: str
    auth_credentials: list[_CredentialName]


class _CacheRuleRequest(msgspec.Struct, rename="camel"):
    source_repository: str | UnsetType = UNSET
    target_repository: str | UnsetType = UNSET
    credential_set_resource_id: str | UnsetType = UNSET


class _CacheRuleProperties(Properties):
    credential_set_resource_id: str | None
    source_repository: str
    target_repository: str
    creation_date: str


class CredentialSets(Children[CredentialSet, _CredentialSetRequest]):
    """User names and passwords, which are stored sealed and never shown."""

    kind = CredentialSet
    request = _CredentialSetRequest
    name = re.compile(r"[a-zA-Z0-9-]{5,50}")

    def __init__(self, catalog: Catalog, tokens: Tokens, pull_through: PullThrough) -> None:
        super().__init__(catalog)
        self._tokens = tokens
        self._pull_through = pull_through

    async def read(
        self, registry: Registry, name: str, body: Body[_CredentialSetRequest], existing: CredentialSet | None
    ) -> CredentialSet:
        """The credential set. A request without credentials keeps the existing ones. Raises `ArmError` 400."""
        server = fold(given(body.properties.login_server, existing.login_server if existing else ""))
        if not is_server(server):
            raise _invalid("loginServer", f"'{server[:200]}' is not a server.")
        logins = given(body.properties.auth_credentials, [])
        sealed = existing.sealed if existing else ""
        if logins:
            login = logins[0]
            if login.username is None or login.password is None:
                raise _invalid(
                    "authCredentials",
                    "Key vaults are not supported: set username and password in authCredentials[0].",
                )
            sealed = seal_credentials(self._tokens, registry, name, login.username, login.password)
        if not sealed:
            raise _invalid("authCredentials", "authCredentials is missing.")
        return CredentialSet(name, existing.created if existing else clock.rfc3339_micro(), server, sealed)

    def properties(self, registry: Registry, resource: CredentialSet) -> _CredentialSetProperties:
        """The properties in responses."""
        return _CredentialSetProperties(
            login_server=resource.login_server,
            creation_date=resource.created,
            auth_credentials=[_CredentialName()],
        )

    async def changed(self) -> None:
        """Apply the new credentials to pulls."""
        self._pull_through.changed()


class CacheRules(Children[CacheRule, _CacheRuleRequest]):
    """Cache rules, each with its own target."""

    kind = CacheRule
    request = _CacheRuleRequest
    name = re.compile(r"[a-zA-Z0-9-]{5,50}")

    def __init__(self, catalog: Catalog, pull_through: PullThrough) -> None:
        super().__init__(catalog)
        self._pull_through = pull_through

    async def read(
        self, registry: Registry, name: str, body: Body[_CacheRuleRequest], existing: CacheRule | None
    ) -> CacheRule:
        """The rule, with an optional credential set for the server of its source. Raises `ArmError` 400, 409."""
        source = given(body.properties.source_repository, existing.source if existing else "")
        target = given(body.properties.target_repository, existing.target if existing else "")
        server, _, repository = source.partition("/")
        if not is_server(server) or not _is_pattern(repository):
            raise _invalid("sourceRepository", f"'{source[:300]}' is not server/repository, or server/prefix/*.")
        if not _is_pattern(target):
            raise _invalid("targetRepository", f"'{target[:300]}' is not a repository, or prefix/*.")
        if source.endswith("*") != target.endswith("*"):
            raise _invalid("targetRepository", "Either both source and target end in * or neither does.")
        for other in self.all(registry):
            if other.target == target and fold(other.name) != fold(name):
                raise ArmError(409, "Conflict", f"The cache rule '{other.name}' has the target '{target}' already.")
        credentials = existing.credential_set if existing else ""
        if not isinstance(body.properties.credential_set_resource_id, UnsetType):
            credentials = self._credential_set(registry, body.properties.credential_set_resource_id, server)
        created = existing.created if existing else clock.rfc3339_micro()
        return CacheRule(name, created, source, target, credentials)

    def properties(self, registry: Registry, resource: CacheRule) -> _CacheRuleProperties:
        """The properties in responses."""
        credential_set = resource.credential_set
        return _CacheRuleProperties(
            credential_set_resource_id=f"{registry.id}/credentialSets/{credential_set}" if credential_set else None,
            source_repository=resource.source,
            target_repository=resource.target,
            creation_date=resource.created,
        )

    async def changed(self) -> None:
        """Apply the new rules to pulls."""
        self._pull_through.changed()

    def _credential_set(self, registry: Registry, text: str, server: str) -> str:
        """The name of the credential set with an id, for the server of the source. Raises `ArmError` 400."""
        prefix, _, name = text.rpartition("/")
        credential_set = self._resources.find(registry.key, CredentialSet, name)
        if fold(prefix) != fold(f"{registry.id}/credentialSets") or credential_set is None:
            raise _invalid("credentialSetResourceId", f"The credential set '{text[:300]}' was not found.")
        if credential_set.login_server != fold(server):
            raise _invalid(
                "credentialSetResourceId",
                f"The credential set '{name}' is for '{credential_set.login_server}', not '{server}'.",
            )
        return credential_set.name


def _is_pattern(text: str) -> bool:
    """Whether a text is a repository, `*`, or a prefix that ends in `/*`."""
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
