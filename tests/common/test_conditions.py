"""Conditions of role assignments: a table of cases, and the property that no condition makes an assignment grant more."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cumulet.common.conditions import ConditionError, parse
from cumulet.common.rbac import BUILT_IN_ROLES, RoleAssignment, RoleDefinition, allowed

REGISTRIES = "Microsoft.ContainerRegistry/registries"
READ = f"{REGISTRIES}/repositories/content/read"
WRITE = f"{REGISTRIES}/repositories/content/write"
NAME = f"@Request[{REGISTRIES}/repositories:name]"

#: As Azure's portal writes it for a repository reader.
PORTALS = f"""
(
 (
  !(ActionMatches{{'{READ}'}})
  AND
  !(ActionMatches{{'{REGISTRIES}/repositories/metadata/read'}})
 )
 OR
 (
  {NAME} StringStartsWithIgnoreCase 'team-a/'
 )
)
"""


GUID, OTHER = "b24988ac-6180-42a0-ab88-20f7382dd24c", "7f951dda-4ed3-4680-a7ca-43fe172d538d"


def holds(condition: str, name: str | None, action: str = READ) -> bool:
    attributes = {} if name is None else {f"{REGISTRIES}/repositories:name".lower(): name}
    return parse(condition)(action, attributes)


@pytest.mark.parametrize(
    ("condition", "yes", "no"),
    [
        (f"{NAME} StringEquals 'app'", ["app"], ["App", "app2", "x/app"]),
        (f"{NAME} StringEqualsIgnoreCase 'APP'", ["app", "App"], ["app2"]),
        (f"{NAME} StringNotEquals 'app'", ["App", "x"], ["app"]),
        (f"{NAME} StringStartsWith 'team/'", ["team/a", "team/"], ["team", "Team/a", "x/team/a"]),
        (f"{NAME} StringNotStartsWith 'team/'", ["x"], ["team/a"]),
        (f"{NAME} StringLike 'team/*/app'", ["team/x/app"], ["team/app", "team/x/app2"]),
        (f"{NAME} StringLikeIgnoreCase 'TEAM/*'", ["team/x"], ["x"]),
        (f"{NAME} ForAnyOfAnyValues:StringEquals {{'a', 'b'}}", ["a", "b"], ["c"]),
        (f"{NAME} ForAnyOfAllValues:StringNotEquals {{'a', 'b'}}", ["c"], ["a", "b"]),
        (f"{NAME} ForAnyOfAnyValues:StringNotEquals {{'a', 'b'}}", ["a", "b", "c"], []),
        (f"{NAME} GuidEquals {GUID}", [GUID, GUID.upper()], [GUID[:-1] + "0", "x"]),
        (f"{NAME} ForAnyOfAnyValues:GuidEquals {{{GUID.upper()}, '{OTHER}'}}", [GUID, OTHER], ["x"]),
        (f"{NAME} ForAnyOfAllValues:GuidNotEquals {{{GUID}, {OTHER}}}", ["x"], [GUID, OTHER]),
        (f"{NAME} StringEqualsIgnoreCase 'k'", ["K"], ["\N{KELVIN SIGN}"]),
        (f"{NAME} StringEquals 'a' OR {NAME} StringEquals 'b' AND {NAME} StringEquals 'c'", ["a"], ["b", "c"]),
        (f"({NAME} StringEquals 'a' || {NAME} StringEquals 'b') && {NAME} StringNotEquals 'a'", ["b"], ["a"]),
        (f"NOT {NAME} StringEquals 'a'", ["b"], ["a"]),
        (rf"{NAME} StringEquals 'it\'s'", ["it's"], ["its"]),
        (f"ActionMatches{{'{REGISTRIES}/*/READ'}}", ["a"], []),
        (f"ActionMatches{{'{WRITE}'}}", [], ["a"]),
        (PORTALS, ["team-a/x", "Team-A/y"], ["team-b/x", "x"]),
    ],
)
def test_what_a_condition_says(condition: str, yes: list[str], no: list[str]) -> None:
    assert [name for name in yes if not holds(condition, name)] == []
    assert [name for name in no if holds(condition, name)] == []


def test_a_request_without_the_attribute() -> None:
    assert not holds(f"{NAME} StringEquals 'a'", None)
    assert not holds(f"{NAME} StringNotEquals 'a'", None)
    assert not holds(f"!({NAME} StringEquals 'a')", None)
    assert not holds(f"!({NAME} StringEquals 'a' AND {NAME} StringEquals 'b')", None)
    assert not holds(f"NOT NOT {NAME} StringEquals 'a'", None)
    assert holds(f"{NAME} StringEquals 'a' OR ActionMatches{{'*'}}", None)
    assert not holds(PORTALS, None)
    assert holds(PORTALS, None, WRITE)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "(",
        ")",
        "word",
        NAME,
        f"{NAME} StringEquals",
        f"{NAME} StringEquals a",
        f"{NAME} StringEquals 'a",
        f"{NAME} StringEquals 'a' 'b'",
        f"{NAME} StringEquals {{'a', 'b'}}",
        f"{NAME} ForAnyOfAnyValues:StringEquals {{}}",
        f"{NAME} ForAnyOfAnyValues:StringEquals {{'a' 'b'}}",
        f"{NAME} NumericEquals '1'",
        f"{NAME} StringEquals 'a' AND",
        f"{NAME} StringEquals 'a' XOR {NAME} StringEquals 'b'",
        "@Principal[x] StringEquals 'a'",
        "ActionMatches",
        "ActionMatches{'a','b'}",
        "!" * 100 + f"{NAME} StringEquals 'a'",
        "(" * 100,
        "'" * 9000,
    ],
)
def test_what_cannot_be_read_grants_nothing(text: str) -> None:
    with pytest.raises(ConditionError):
        parse(text)
    if text:
        reader = next(role for role in BUILT_IN_ROLES.values() if role.role_name == "Owner")
        mine = [RoleAssignment("n", "p", reader.name, "/", text)]
        assert not allowed("a/read", "/x", mine, BUILT_IN_ROLES)


names = st.sampled_from(["a", "team/a", "b"])
terms = st.one_of(
    st.sampled_from(["Equals", "NotEquals", "StartsWith", "LikeIgnoreCase"]).flatmap(
        lambda kind: names.map(lambda name: f"{NAME} String{kind} '{name}'")
    ),
    st.sampled_from([READ, WRITE, "*"]).map(lambda action: f"ActionMatches{{'{action}'}}"),
)
conditions = st.recursive(
    terms,
    lambda inner: st.one_of(
        inner.map(lambda one: f"!({one})"),
        st.tuples(inner, st.sampled_from(["AND", "OR"]), inner).map(lambda parts: "({} {} {})".format(*parts)),
    ),
    max_leaves=6,
)


@given(conditions, st.sampled_from([READ, WRITE]), names, st.sampled_from(list(BUILT_IN_ROLES.values())))
def test_a_condition_never_grants_more(condition: str, action: str, name: str, role: RoleDefinition) -> None:
    attributes = {f"{REGISTRIES}/repositories:name".lower(): name}
    plain = [RoleAssignment("n", "p", role.name, "/")]
    conditional = [RoleAssignment("n", "p", role.name, "/", condition)]
    with_it = allowed(action, "/x", conditional, BUILT_IN_ROLES, data=True, attributes=attributes)
    without = allowed(action, "/x", plain, BUILT_IN_ROLES, data=True, attributes=attributes)
    assert with_it is (without and parse(condition)(action, attributes))


@given(st.text(max_size=60))
def test_any_text_is_a_condition_or_refused(text: str) -> None:
    try:
        parse(text)(READ, {})
    except ConditionError:
        return
