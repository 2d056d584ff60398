"""Sets and chains of the table, and scripts of nft(8) that load them: all, or the step from one state to the next.

Names are fixed words and digests, and elements are numbers and addresses: a script has no text from outside.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

import msgspec

NAME = "policies"
TABLE = f"ip {NAME}"

ADDRESSES, PAIRS, TARGETS = "type ipv4_addr", "type ipv4_addr . ipv4_addr", "type ipv4_addr . inet_service"
VERDICTS = "type ipv4_addr : verdict"
PORTS = "type inet_service; flags interval"


def name_of(kind: str, what: object) -> str:
    """Return a name for a set or a chain: of one kind, and of equal content, there is one."""
    return f"{kind}_{hashlib.sha256(msgspec.json.encode(what, order='deterministic')).hexdigest()[:32]}"


@dataclass
class NftSet:
    """A set, or a map: its type, and its elements with their verdicts, which are empty in a set."""

    type: str
    elements: dict[str, str] = field(default_factory=dict)


Rules = tuple[str, ...]

#: The names of the sets and chains that may differ, with the elements that may.
Touched = Mapping[str, Collection[str]]


@dataclass
class Ruleset:
    """Sets and chains by name. A chain is the tuple of its rules; that of a hook begins with its declaration."""

    sets: dict[str, NftSet] = field(default_factory=dict)
    chains: dict[str, Rules] = field(default_factory=dict)

    def script(self) -> str:
        """Return the script that replaces the table, whatever it has, in one transaction."""
        made = "".join(_made(name, item) for name, item in self.sets.items())
        chains = "".join(f"add chain {TABLE} {name}{_hook(rules)}\n" for name, rules in self.chains.items())
        filled = "".join(_elements("add", name, item, item.elements) for name, item in self.sets.items())
        rules = "".join(_rules(name, rules) for name, rules in self.chains.items())
        return f"add table {TABLE}\ndelete table {TABLE}\nadd table {TABLE}\n{made}{chains}{filled}{rules}"

    def copy(self) -> Ruleset:
        """Return one that changes on its own."""
        sets = {name: NftSet(item.type, dict(item.elements)) for name, item in self.sets.items()}
        return Ruleset(sets, dict(self.chains))

    def update(self, other: Ruleset, touched: Touched) -> None:
        """Become equal to another, from which it differs in no more than what was touched."""
        for name, elements in touched.items():
            if name in other.chains:
                self.chains[name] = other.chains[name]
            else:
                self.chains.pop(name, None)
            if name not in other.sets:
                self.sets.pop(name, None)
                continue
            mine, theirs = self.sets.setdefault(name, NftSet(other.sets[name].type)), other.sets[name]
            for element in elements:
                if element in theirs.elements:
                    mine.elements[element] = theirs.elements[element]
                else:
                    mine.elements.pop(element, None)


def difference(before: Ruleset, after: Ruleset, touched: Touched) -> str:
    """Return the script from `before` to `after`, which differ in no more than what was touched.

    Whatever a step refers to is made before it, and what is deleted is no longer referred to.
    """
    sets, chains, emptied, filled, removed, added, deleted = [], [], [], [], [], [], []
    for name in sorted(touched):
        old_rules, rules = before.chains.get(name), after.chains.get(name)
        if old_rules is None and rules is not None:
            chains.append(f"add chain {TABLE} {name}{_hook(rules)}\n")
        elif old_rules is not None and old_rules != rules:
            emptied.append(f"flush chain {TABLE} {name}\n")
        if rules is None and old_rules is not None:
            deleted.append(f"delete chain {TABLE} {name}\n")
        elif rules is not None and old_rules != rules:
            filled.append(_rules(name, rules))
        old, new = before.sets.get(name), after.sets.get(name)
        if old is None and new is not None:
            sets.append(_made(name, new) + _elements("add", name, new, new.elements))
        elif old is not None and new is None:
            deleted.append(f"delete {_kind(old)} {TABLE} {name}\n")
        elif old is not None and new is not None:
            removed.append(_elements("delete", name, old, _changed(old, new, touched[name])))
            added.append(_elements("add", name, new, _changed(new, old, touched[name])))
    # A map refers to chains, a chain to sets; so a chain is deleted after its elements, and a set after the rules.
    return "".join([*sets, *chains, *emptied, *filled, *removed, *added, *sorted(deleted)])


def _changed(one: NftSet, other: NftSet, elements: Collection[str]) -> dict[str, str]:
    """Return those of the elements that the first set has and the other does not, or with another verdict."""
    found = {element: one.elements[element] for element in elements if element in one.elements}
    return {element: verdict for element, verdict in found.items() if other.elements.get(element) != verdict}


def _kind(item: NftSet) -> str:
    return "map" if item.type == VERDICTS else "set"


def _made(name: str, item: NftSet) -> str:
    return f"add {_kind(item)} {TABLE} {name} {{ {item.type}; }}\n"


def _elements(verb: str, name: str, item: NftSet, elements: Mapping[str, str]) -> str:
    if not elements:
        return ""
    texts = (f"{key} : {verdict}" if verdict and verb == "add" else key for key, verdict in elements.items())
    return f"{verb} element {TABLE} {name} {{ {', '.join(texts)} }}\n"


def _hook(rules: Rules) -> str:
    return f" {{ {rules[0]} }}" if rules and rules[0].startswith("type ") else ""


def _rules(name: str, rules: Rules) -> str:
    return "".join(f"add rule {TABLE} {name} {rule}\n" for rule in rules if not rule.startswith("type "))
