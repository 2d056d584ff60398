"""Decisions compare ASCII: the helpers, and the rule that nothing of ours goes past them."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import cumulet
from cumulet.common.arm import ArmError, ResourceId
from cumulet.common.ascii import fold, is_digits, raised, same, whole_number
from cumulet.common.rbac import BUILT_IN_ROLES, Permission, RoleAssignment, allowed, covers

SOURCES = Path(cumulet.__file__).parent
BEYOND_ASCII = [chr(code) for code in range(128, sys.maxunicode + 1) if not 0xD800 <= code < 0xE000]
#: What knows all of Unicode, by the name of a method without arguments.
_METHODS = frozenset({"lower", "upper", "casefold", "isdecimal", "isdigit", "isnumeric", "isalnum", "isalpha"})
_CLASSES = ("\\d", "\\D", "\\w", "\\W", "\\s", "\\S", "\\b")
#: Where that is right, and why.
_EXCEPTIONS = {
    "common/ascii.py": "the helpers themselves",
    "instances/images/tar.py": "bytes, of which Python knows ASCII only",
    "arm/resource_groups.py": "names of resource groups have letters of any script, as Azure's",
}


def test_no_other_character_becomes_or_equals_an_ascii_one() -> None:
    for char in BEYOND_ASCII:
        assert fold(char) == raised(char) == char
    assert fold("AbZ\N{KELVIN SIGN}") == "abz\N{KELVIN SIGN}"
    assert raised("abz\N{LATIN SMALL LETTER LONG S}") == "ABZ\N{LATIN SMALL LETTER LONG S}"
    assert same("subscriptions", "SUBSCRIPTIONS")
    assert not same("subscriptions", "\N{LATIN SMALL LETTER LONG S}ubscriptions")


def test_numbers_have_ascii_digits() -> None:
    assert not any(is_digits(char) for char in BEYOND_ASCII)
    assert [whole_number(text) for text in ("0", "007", "9" * 18)] == [0, 7, int("9" * 18)]
    for text in (
        "",
        "-1",
        "+1",
        " 1",
        "1 ",
        "1_0",
        "1.0",
        "0x1",
        "9" * 19,
        "\N{ARABIC-INDIC DIGIT ONE}",
        "\N{SUPERSCRIPT TWO}",
    ):
        assert whole_number(text) is None, text


def test_scopes_and_actions_are_no_wider_than_ascii() -> None:
    assert covers("/subscriptions/a", "/SUBSCRIPTIONS/A/x")
    for wide in ("/\N{LATIN SMALL LETTER LONG S}ubscriptions/a", "/subscriptions/\N{KELVIN SIGN}"):
        assert not covers(wide, "/subscriptions/a")
        assert not covers("/subscriptions/k", wide)
    role = Permission(actions=("*",), not_actions=("x/ListKeys/action",))
    assert not role.grants("X/LISTKEYS/ACTION")
    owner = next(iter(BUILT_IN_ROLES))
    given = RoleAssignment("n", "p", owner, "/subscriptions/\N{KELVIN SIGN}")
    assert not allowed("x/read", "/subscriptions/k", [given], BUILT_IN_ROLES)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "/",
        "/subscriptions",
        "/\N{LATIN SMALL LETTER LONG S}ubscriptions/s",
        "/subscriptions/s/resourceGroups",
        "/subscriptions/s/resource\N{FULLWIDTH LATIN CAPITAL LETTER G}roups/g",
        "/subscriptions/s/x/y",
        "/subscriptions/s/resourceGroups/g/providers",
        "/subscriptions/s/resourceGroups/g/providers/Microsoft.X/reg\N{LATIN SMALL LETTER DOTLESS I}stries/r",
        "/subscriptions/s/resourceGroups/g/providers/Microsoft.X/a b/r",
        "/subscriptions/s\r\n",
        "/subscriptions/s/resourceGroups/g\0",
    ],
)
def test_a_resource_id_is_one_or_refused(text: str) -> None:
    with pytest.raises(ArmError):
        ResourceId(text)


def _uses() -> Iterator[tuple[str, int, str]]:
    for file in sorted(SOURCES.rglob("*.py")):
        name = str(file.relative_to(SOURCES))
        if name not in _EXCEPTIONS:
            for node in ast.walk(ast.parse(file.read_text())):
                if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                    if node.func.attr in _METHODS and not node.args:
                        yield name, node.lineno, f".{node.func.attr}()"
                    elif isinstance(node.func.value, ast.Name) and node.func.value.id == "re" and _is_wide(node):
                        yield name, node.lineno, "a pattern without re.ASCII"
                elif isinstance(node, ast.Constant) and isinstance(node.value, str) and "(?i" in node.value:
                    yield name, node.lineno, "(?i in a pattern: use (?ai"


def _is_wide(call: ast.Call) -> bool:
    """Whether a pattern of text depends on what Unicode calls a digit, a word, a space or a case."""
    pattern = "".join(
        part.value
        for part in (ast.walk(call.args[0]) if call.args else ())
        if isinstance(part, ast.Constant) and isinstance(part.value, str)
    )
    flags = {node.attr for node in ast.walk(call) if isinstance(node, ast.Attribute)}
    wide = any(each in pattern for each in _CLASSES) or bool(flags & {"IGNORECASE", "I"})
    return wide and not flags & {"ASCII", "A"}


def test_nothing_of_ours_compares_otherwise() -> None:
    found = [f"{name}:{line}: {what}" for name, line, what in _uses()]
    assert not found, "use cumulet.common.ascii:\n" + "\n".join(found)
