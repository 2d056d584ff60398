"""The decision function of Azure RBAC: a table of cases, and properties that hold for every role and assignment."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cumulet.common.rbac import (
    BUILT_IN_ROLES,
    DELETE,
    PULL,
    PUSH,
    SIGN,
    Permission,
    RoleAssignment,
    RoleDefinition,
    allowed,
    covers,
)

SUBSCRIPTION = "/subscriptions/s"
GROUP = f"{SUBSCRIPTION}/resourceGroups/g"
REGISTRY = f"{GROUP}/providers/Microsoft.ContainerRegistry/registries/r"
GIVE = "Microsoft.Authorization/roleAssignments/write"
CREATE = "Microsoft.ContainerRegistry/registries/write"
READ = "Microsoft.ContainerRegistry/registries/read"
KEYS = "Microsoft.ContainerRegistry/registries/listCredentials/action"
CONTENT = "Microsoft.ContainerRegistry/registries/repositories/content"

_BY_NAME = {role.role_name: role for role in BUILT_IN_ROLES.values()}


def given_role(role: RoleDefinition, scope: str) -> RoleAssignment:
    return RoleAssignment("n", "p", role.name, scope)


@pytest.mark.parametrize(
    ("role", "yes", "no"),
    [
        ("Owner", [GIVE, CREATE, READ, KEYS, PULL, PUSH, DELETE, SIGN], []),
        (
            "Contributor",
            [CREATE, READ, KEYS, PULL, PUSH, DELETE],
            [GIVE, "microsoft.authorization/ROLEdefinitions/Delete"],
        ),
        ("Reader", [READ, PULL], [GIVE, CREATE, KEYS, PUSH, DELETE, SIGN]),
        ("AcrPull", [PULL], [READ, PUSH, DELETE, SIGN, GIVE]),
        ("AcrPush", [PULL, PUSH], [READ, CREATE, DELETE, SIGN]),
        ("AcrDelete", [DELETE], [PULL, PUSH, SIGN, READ]),
        ("AcrImageSigner", [SIGN], [PULL, PUSH, DELETE]),
        ("User Access Administrator", [GIVE, READ, PULL], [CREATE, PUSH, KEYS]),
        (
            "Role Based Access Control Administrator",
            [GIVE, READ],
            [CREATE, "Microsoft.Authorization/roleDefinitions/write"],
        ),
        ("Container Registry Repository Reader", [], [READ, PULL, PUSH]),
    ],
)
def test_what_built_in_roles_grant(role: str, yes: list[str], no: list[str]) -> None:
    mine = [given_role(_BY_NAME[role], REGISTRY)]
    assert [action for action in yes if not allowed(action, REGISTRY, mine, BUILT_IN_ROLES)] == []
    assert [action for action in no if allowed(action, REGISTRY, mine, BUILT_IN_ROLES)] == []


@pytest.mark.parametrize(
    ("role", "yes", "no"),
    [
        ("Container Registry Repository Reader", ["read"], ["write", "delete"]),
        ("Container Registry Repository Writer", ["read", "write"], ["delete"]),
        ("Container Registry Repository Contributor", ["read", "write", "delete"], []),
        ("Container Registry Repository Catalog Lister", [], ["read", "write", "delete"]),
        ("Owner", [], ["read", "write", "delete"]),
    ],
)
def test_what_built_in_roles_grant_of_data(role: str, yes: list[str], no: list[str]) -> None:
    mine = [given_role(_BY_NAME[role], REGISTRY)]
    for verbs, expected in ((yes, True), (no, False)):
        for verb in verbs:
            assert allowed(f"{CONTENT}/{verb}", REGISTRY, mine, BUILT_IN_ROLES, data=True) is expected, verb
            assert not allowed(f"{CONTENT}/{verb}", REGISTRY, mine, BUILT_IN_ROLES) or role == "Owner"


@pytest.mark.parametrize(
    ("scope", "resource", "inside"),
    [
        ("/", REGISTRY, True),
        (SUBSCRIPTION, REGISTRY, True),
        (GROUP, REGISTRY, True),
        (GROUP.upper(), REGISTRY, True),
        (f"{GROUP}/", REGISTRY, True),
        (REGISTRY, REGISTRY, True),
        (REGISTRY, GROUP, False),
        (GROUP, SUBSCRIPTION, False),
        (GROUP, f"{GROUP}2", False),
        (f"{GROUP}2", REGISTRY, False),
        (f"{REGISTRY}2", REGISTRY, False),
        ("/subscriptions/other", REGISTRY, False),
    ],
)
def test_an_assignment_is_inherited_downwards_only(scope: str, resource: str, inside: bool) -> None:
    assert covers(scope, resource) is inside
    mine = [given_role(_BY_NAME["Reader"], scope)]
    assert allowed(READ, resource, mine, BUILT_IN_ROLES) is inside


@pytest.mark.parametrize(
    ("pattern", "action", "matches"),
    [
        ("*", "A/b/read", True),
        ("*/read", "A/b/READ", True),
        ("*/read", "A/b/reader", False),
        ("A/*/read", "A/b/c/read", True),
        ("A/*/read", "A/read", False),
        ("A/b/*", "A/b/", True),
        ("A/b/*", "A/bb/read", False),
        ("a*a", "a", False),
        ("a*b*c", "a-b-b-c", True),
        ("a*b*c", "a-c-b", False),
        ("", "", True),
        ("", "a", False),
        ("A/b/read", "A/b/read/more", False),
        ("A.b/c", "Axb/c", False),
    ],
)
def test_patterns(pattern: str, action: str, matches: bool) -> None:
    assert Permission(actions=(pattern,)).grants(action) is matches


def test_what_is_not_granted_takes_away_within_its_permission_only() -> None:
    both = Permission(actions=("A/*",), not_actions=("A/b/*",))
    more = Permission(actions=("A/b/read",))
    role = RoleDefinition("r", "R", (both, more))
    mine = [given_role(role, "/")]
    assert allowed("A/c/read", "/x", mine, {"r": role})
    assert allowed("A/b/read", "/x", mine, {"r": role})
    assert not allowed("A/b/write", "/x", mine, {"r": role})


def test_a_role_that_is_gone_grants_nothing() -> None:
    assert not allowed(READ, REGISTRY, [RoleAssignment("n", "p", "gone", "/")], BUILT_IN_ROLES)
    assert not allowed(READ, REGISTRY, [], BUILT_IN_ROLES)


def test_a_hostile_pattern_takes_no_time() -> None:
    assert not Permission(actions=("*a" * 200 + "b",)).grants("a" * 5000)


# What holds for all.

words = st.sampled_from(["a", "B", "ab", "read", "write", "microsoft.x"])
actions = st.lists(words, min_size=1, max_size=4).map("/".join)
patterns = st.lists(st.one_of(words, st.just("*")), min_size=1, max_size=4).map("/".join)
lists = st.lists(patterns, max_size=3).map(tuple)
permissions = st.builds(Permission, actions=lists, not_actions=lists, data_actions=lists, not_data_actions=lists)
roles = st.builds(
    RoleDefinition,
    name=st.sampled_from(["1", "2", "3"]),
    role_name=st.just("r"),
    permissions=st.lists(permissions, max_size=2).map(tuple),
)
scopes = st.lists(st.sampled_from(["s", "S2", "g", "g2", "r"]), max_size=4).map(lambda parts: "/" + "/".join(parts))
assignments = st.lists(
    st.builds(
        RoleAssignment, name=st.just("n"), principal_id=st.just("p"), role=st.sampled_from("123"), scope=scopes
    ),
    max_size=4,
)
definitions = st.lists(roles, max_size=3).map(lambda found: {role.name: role for role in found})


@given(actions, scopes, assignments, definitions, st.booleans())
def test_no_assignment_grants_more_than_its_role(
    action: str,
    scope: str,
    mine: list[RoleAssignment],
    known: dict[str, RoleDefinition],
    data: bool,
) -> None:
    granted = allowed(action, scope, mine, known, data=data)
    covering = [assignment for assignment in mine if covers(assignment.scope, scope)]
    granting = [
        permission
        for assignment in covering
        if assignment.role in known
        for permission in known[assignment.role].permissions
        if permission.grants(action, data=data)
    ]
    assert granted is bool(granting)
    for permission in granting:
        denied = permission.not_data_actions if data else permission.not_actions
        assert action.lower() not in {entry.lower() for entry in denied}
        assert "*" not in denied


@given(actions, scopes, assignments, assignments, definitions)
def test_grants_add_up(
    action: str,
    scope: str,
    some: list[RoleAssignment],
    more: list[RoleAssignment],
    known: dict[str, RoleDefinition],
) -> None:
    together = allowed(action, scope, [*some, *more], known)
    assert together is (allowed(action, scope, some, known) or allowed(action, scope, more, known))


@given(actions, scopes, scopes, assignments, definitions)
def test_what_is_allowed_on_a_scope_is_allowed_below_it(
    action: str, scope: str, below: str, mine: list[RoleAssignment], known: dict[str, RoleDefinition]
) -> None:
    if allowed(action, scope, mine, known):
        assert allowed(action, f"{scope.rstrip('/')}{below}", mine, known)


@given(actions, scopes, assignments, definitions)
def test_case_makes_no_difference(
    action: str, scope: str, mine: list[RoleAssignment], known: dict[str, RoleDefinition]
) -> None:
    assert allowed(action, scope, mine, known) is allowed(action.swapcase(), scope.swapcase(), mine, known)


@given(actions, lists, st.lists(words, max_size=2).map(tuple))
def test_denying_more_grants_no_more(action: str, granted: tuple[str, ...], denied: tuple[str, ...]) -> None:
    if Permission(actions=granted, not_actions=denied).grants(action):
        assert Permission(actions=granted).grants(action)
    assert not Permission(actions=granted, not_actions=(*denied, action)).grants(action)
