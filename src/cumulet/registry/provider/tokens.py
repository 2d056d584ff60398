"""`registries/tokens` and `generateCredentials` (REST reference 2023-07-01)."""

from __future__ import annotations

import re
from typing import Any

import msgspec
from aiohttp import web

from cumulet.common import clock
from cumulet.common.arm import ArmError, json_response, read_json
from cumulet.common.ascii import fold
from cumulet.registry.access.repository_tokens import PASSWORDS, Password, RepositoryToken, new_password
from cumulet.registry.access.scope_maps import SYSTEM_SCOPE_MAPS, ScopeMap
from cumulet.registry.catalog.store import Registry
from cumulet.registry.provider import paths
from cumulet.registry.provider.child_resources import Body, Children

_GUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE | re.ASCII)
_STATES = ("enabled", "disabled")


class RepositoryTokens(Children[RepositoryToken]):
    """Passwords are made here, shown once and kept hashed; a caller cannot choose one."""

    kind = RepositoryToken

    def routes(self) -> list[web.RouteDef]:
        """What is served."""
        generate = f"{paths.REGISTRY}/{paths.word('generateCredentials')}"
        return [*super().routes(), web.post(generate, self._generate)]

    def check_change(self, registry: Registry, name: str) -> None:
        """No token takes the name of another kind of principal."""
        if fold(name) == registry.key or _GUID.fullmatch(name):
            raise ArmError(400, "InvalidName", f"The name '{name}' is that of another principal.", target="name")

    async def read(
        self, registry: Registry, name: str, body: Body, existing: RepositoryToken | None
    ) -> RepositoryToken:
        """Passwords can be taken away here: those that `credentials.passwords` does not name."""
        status = body.get("status", str, "enabled" if existing is None or existing.enabled else "disabled")
        if status not in _STATES:
            raise ArmError(
                400, "InvalidTokenStatus", f"status must be {' or '.join(_STATES)}.", target="properties.status"
            )
        if body.has("scopeMapId"):
            scope_map = self._scope_map(registry, body.get("scopeMapId", str, ""))
        elif existing is not None:
            scope_map = existing.scope_map
        else:
            raise ArmError(400, "ScopeMapRequired", "scopeMapId is missing.", target="properties.scopeMapId")
        passwords = existing.passwords if existing else ()
        credentials = body.get("credentials", dict[str, Any], {})
        if isinstance(kept := credentials.get("passwords"), list):
            names = {item.get("name") for item in kept if isinstance(item, dict)}
            passwords = tuple(password for password in passwords if password.name in names)
        return RepositoryToken(
            name, existing.created if existing else clock.rfc3339_micro(), scope_map, status == "enabled", passwords
        )

    def properties(self, registry: Registry, resource: RepositoryToken) -> dict[str, Any]:
        """In the REST reference's names."""
        return {
            "creationDate": resource.created,
            "scopeMapId": f"{registry.id}/scopeMaps/{resource.scope_map}",
            "status": "enabled" if resource.enabled else "disabled",
            "credentials": {
                "passwords": [_show(password) for password in resource.passwords],
                "certificates": [],
            },
        }

    def _scope_map(self, registry: Registry, scope_map_id: str) -> str:
        """The name of the scope map of an id, in the same registry."""
        prefix, _, name = scope_map_id.rpartition("/")
        system = SYSTEM_SCOPE_MAPS.get(fold(name))
        found = system or self._resources.find(registry.key, ScopeMap, name)
        if fold(prefix) != fold(f"{registry.id}/scopeMaps") or found is None:
            raise ArmError(
                400,
                "ScopeMapNotFound",
                f"The scope map '{scope_map_id[:300]}' was not found in the registry '{registry.name}'.",
                target="properties.scopeMapId",
            )
        return found.name

    async def _generate(self, request: web.Request) -> web.Response:
        """A new text for one password, or for both where none is named; the other one stays good."""
        registry = paths.existing(self._catalog, request)
        body = await read_json(request)
        token_id, name = str(body.get("tokenId", "")), body.get("name")
        self._named(registry, token_id)
        if name is not None and name not in PASSWORDS:
            raise ArmError(400, "InvalidPasswordName", f"name must be {' or '.join(PASSWORDS)}.", target="name")
        made = {
            each: await new_password(each, _expiry(body.get("expiry"))) for each in ((name,) if name else PASSWORDS)
        }
        async with self._change:
            token = self._named(registry, token_id)
            passwords = {password.name: password for password in token.passwords}
            passwords |= {each: password for each, (password, _) in made.items()}
            kept = tuple(passwords[each] for each in PASSWORDS if each in passwords)
            await self._resources.put(registry.key, msgspec.structs.replace(token, passwords=kept))
        shown = [{**_show(password), "value": text} for password, text in made.values()]
        return json_response({"username": token.name, "passwords": shown})

    def _named(self, registry: Registry, token_id: str) -> RepositoryToken:
        prefix, _, name = token_id.rpartition("/")
        token = self._resources.find(registry.key, RepositoryToken, name)
        if fold(prefix) != fold(f"{registry.id}/tokens") or token is None:
            raise ArmError(404, "TokenNotFound", f"The token '{token_id[:300]}' was not found.", target="tokenId")
        return token


def _show(password: Password) -> dict[str, Any]:
    return {"name": password.name, "creationTime": password.created, "expiry": password.expiry}


def _expiry(text: Any) -> str | None:
    if text is None:
        return None
    try:
        moment = clock.parse(str(text))
    except (ValueError, OverflowError):
        raise ArmError(400, "InvalidExpiry", "expiry must be a time in RFC 3339.", target="expiry") from None
    if moment <= clock.now():
        raise ArmError(400, "InvalidExpiry", "expiry must be in the future.", target="expiry")
    return clock.rfc3339_micro(moment)
