"""The rights of roles in a registry: built-in, custom, inherited, and by repository, tested through the protocol."""

from __future__ import annotations

import uuid

import pytest

from cumulet.common.entra import Credential
from tests.cloud import Cloud
from tests.registry.login_server import AcrRegistry, granted

ACTIONS = "pull,push,delete,metadata_read,metadata_write,sign"
REPOSITORIES = ("team-a/app", "team-b/app")
AUTHORIZATION = "providers/Microsoft.Authorization"
REGISTRIES = "Microsoft.ContainerRegistry/registries"
READS = {"pull", "metadata_read"}
WRITES = {*READS, "push", "metadata_write"}


@pytest.fixture(scope="module")
def registry(cloud: Cloud) -> AcrRegistry:
    return AcrRegistry(cloud, "acrrights")


@pytest.fixture(scope="module")
def by_repository(cloud: Cloud) -> AcrRegistry:
    """A registry where roles on the whole registry grant nothing in its data plane."""
    return AcrRegistry(cloud, "acrabac", roleAssignmentMode="AbacRepositoryPermissions")


def rights(registry: AcrRegistry, who: Credential) -> dict[str, set[str]]:
    """The actions that an access token grants on each repository and the catalog."""
    scopes = [f"repository:{name}:{ACTIONS}" for name in REPOSITORIES]
    held = granted(registry.token_of(who, *scopes, "registry:catalog:*"))
    return {name: set(actions) for name, actions in held.items() if actions}


def everywhere(actions: set[str], *, catalog: bool) -> dict[str, set[str]]:
    found = {name: actions for name in REPOSITORIES if actions}
    return {**found, "catalog": {"*"}} if catalog else found


@pytest.mark.parametrize(
    ("role", "actions", "catalog", "abac"),
    [
        ("Owner", {*WRITES, "delete", "sign"}, True, {}),
        ("Contributor", {*WRITES, "delete", "sign"}, True, {}),
        ("Reader", READS, True, {}),
        ("AcrPull", READS, True, {}),
        ("AcrPush", WRITES, True, {}),
        ("AcrDelete", {"delete"}, False, {}),
        ("AcrImageSigner", {"sign"}, False, {}),
        ("Container Registry Repository Reader", READS, False, everywhere(READS, catalog=False)),
        ("Container Registry Repository Writer", WRITES, False, everywhere(WRITES, catalog=False)),
        (
            "Container Registry Repository Contributor",
            {*WRITES, "delete"},
            False,
            everywhere({*WRITES, "delete"}, catalog=False),
        ),
        ("Container Registry Repository Catalog Lister", set(), True, {"catalog": {"*"}}),
        ("Role Based Access Control Administrator", READS, True, {}),
    ],
)
def test_built_in_roles(
    cloud: Cloud,
    registry: AcrRegistry,
    by_repository: AcrRegistry,
    role: str,
    actions: set[str],
    catalog: bool,
    abac: dict[str, set[str]],
) -> None:
    who = cloud.principal(role, **{role: registry.id})
    assert rights(registry, who) == everywhere(actions, catalog=catalog)
    assert rights(by_repository, who) == {}
    assert cloud.assign(who.object_id, role, by_repository.id).status == 201
    assert rights(by_repository, who) == abac


@pytest.mark.parametrize("above", ["", "/resourceGroups/group"])
def test_roles_are_inherited(cloud: Cloud, registry: AcrRegistry, above: str) -> None:
    who = cloud.principal("above", AcrPull=cloud.subscription + above)
    assert rights(registry, who) == everywhere(READS, catalog=True)


def test_a_role_elsewhere_grants_nothing(cloud: Cloud, registry: AcrRegistry) -> None:
    elsewhere = AcrRegistry(cloud, "acrrights2")
    who = cloud.principal("elsewhere", AcrPush=elsewhere.id)
    assert rights(elsewhere, who) == everywhere(WRITES, catalog=True)
    assert rights(registry, who) == {}


def test_grants_add_up(cloud: Cloud, registry: AcrRegistry) -> None:
    who = cloud.principal("both", AcrPull=cloud.subscription, AcrDelete=registry.id)
    assert rights(registry, who) == everywhere({*READS, "delete"}, catalog=True)


@pytest.mark.parametrize(
    ("permission", "expected"),
    [
        ({"actions": [f"{REGISTRIES}/pull/read"]}, everywhere(READS, catalog=True)),
        ({"actions": [f"{REGISTRIES}/*"], "notActions": [f"{REGISTRIES}/push/write", f"{REGISTRIES}/sign/*"]},
         everywhere({*READS, "delete"}, catalog=True)),
        ({"actions": ["*"], "notActions": ["*/read"]}, everywhere({"push", "metadata_write", "delete", "sign"}, catalog=False)),
        ({"dataActions": [f"{REGISTRIES}/repositories/content/read"]}, everywhere({"pull"}, catalog=False)),
        ({"dataActions": [f"{REGISTRIES}/*"], "notDataActions": [f"{REGISTRIES}/repositories/*/write"]},
         everywhere({*READS, "delete"}, catalog=True)),
        ({"actions": [f"{REGISTRIES}/read"]}, {}),
    ],
)  # fmt: skip
def test_custom_roles(
    cloud: Cloud, registry: AcrRegistry, permission: dict[str, object], expected: dict[str, set[str]]
) -> None:
    name = f"custom {uuid.uuid4()}"
    properties = {"roleName": name, "assignableScopes": [cloud.subscription], "permissions": [permission]}
    path = f"{cloud.subscription}/{AUTHORIZATION}/roleDefinitions/{uuid.uuid4()}"
    assert cloud.arm("PUT", path, {"properties": properties}).status == 201
    who = cloud.principal(name, **{name: registry.id})
    assert rights(registry, who) == expected


# Conditions.


def condition(*actions: str, operator: str, value: str) -> str:
    """A condition in the form that Azure's portal writes."""
    others = " AND ".join(f"!(ActionMatches{{'{REGISTRIES}/repositories/{action}'}})" for action in actions)
    return f"(({others}) OR (@Request[{REGISTRIES}/repositories:name] {operator} '{value}'))"


@pytest.mark.parametrize(
    ("operator", "value", "expected"),
    [
        ("StringEquals", "team-a/app", {"team-a/app": READS}),
        ("StringEqualsIgnoreCase", "TEAM-B/app", {"team-b/app": READS}),
        ("StringStartsWith", "team-a/", {"team-a/app": READS}),
        ("StringStartsWithIgnoreCase", "TEAM-", everywhere(READS, catalog=False)),
        ("StringEquals", "nothing", {}),
    ],
)
def test_a_condition_on_the_repositorys_name(
    cloud: Cloud, by_repository: AcrRegistry, operator: str, value: str, expected: dict[str, set[str]]
) -> None:
    who = cloud.principal("conditional")
    text = condition("content/read", "metadata/read", operator=operator, value=value)
    role = "Container Registry Repository Reader"
    given = cloud.assign(who.object_id, role, by_repository.id, condition=text, conditionVersion="2.0")
    assert given.status == 201, given.body
    assert given.body["properties"]["condition"] == text
    assert rights(by_repository, who) == expected
    # The next token follows the current condition.
    changed = {**given.body["properties"], "condition": None}
    assert cloud.arm("PUT", given.body["id"], {"properties": changed}).status == 200
    assert rights(by_repository, who) == everywhere(READS, catalog=False)


@pytest.mark.parametrize(
    ("text", "version", "code"),
    [
        ("nonsense", "2.0", "InvalidCondition"),
        ("(" * 1000, "2.0", "InvalidCondition"),
        ("x" * 10_000, None, "InvalidCondition"),
        ("@Request[x] StringEquals 'a'", "1.0", "InvalidConditionVersion"),
        ({"a": 1}, "2.0", "InvalidConditionVersion"),
    ],
)
def test_bad_conditions(
    cloud: Cloud, by_repository: AcrRegistry, text: object, version: str | None, code: str
) -> None:
    who = cloud.principal("bad condition")
    answer = cloud.assign(who.object_id, "AcrPull", by_repository.id, condition=text, conditionVersion=version)
    assert (answer.status, answer.code) == (400, code)
