"""The table `ip services` of the router's namespace, as scripts of nft(8): the whole, and the difference to a new state.

A connection to a front end finds its chain in the map `services`. There is one chain for each number of end points. It draws
a number as the connection's mark, which with the front end is a key of `endpoints`. So a Service has no rules, only elements
of maps, and a change of one end point changes a few elements however many there are. The marks of connections are this
table's, and mean nothing later.

With session affinity, `clients` keeps the end point of each client as a mark: the address as a number. A client whose end
point is gone finds no element in `slots`, and draws again.

The scripts contain parsed values only (`model`).
"""

from __future__ import annotations

import ipaddress
import re
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from typing import NamedTuple

from cumulet.network.services.model import Backend, Frontend, Target

NAME = "services"
TABLE = f"ip {NAME}"
#: The clients with session affinity that are remembered, over all Services.
_CLIENTS = 65_536
#: Elements of one command of nft(8). The whole script is one transaction.
_CHUNK = 5_000

_FRONTEND = "ip daddr . meta l4proto . th dport"
_MAPS = ("services", "endpoints", "choices", "slots", "idles")
_SETS = ("refused", "dropped", "limited", "sources", "known", "loops")

#: Names of the chains that depend on end points, affinity and idle time-outs.
_VARIABLE = re.compile(r"n[0-9]+|a[0-9]+t[0-9]+|idle[0-9]+")

#: An element by its set or map and its key, and its data, which is empty for an element of a set.
Elements = dict[tuple[str, str], str]


class Setting(NamedTuple):
    """What the table depends on: the ranges of Services, the uplink, and the address at its other end."""

    service_cidr: str
    external_cidr: str
    uplink: str
    machine: str


class Table:
    """What is in the kernel, or will be when the scripts that were returned have run.

    If a script fails, nothing is certain any more, and `whole` restores it.
    """

    def __init__(self, setting: Setting) -> None:
        self._setting = setting
        self._frontends: dict[Frontend, Target] = {}
        self._known: set[str] = set()
        #: How many front ends use each chain, and how many end points have each address.
        self._chains: Counter[str] = Counter()
        self._loops: Counter[str] = Counter()

    @property
    def frontends(self) -> Mapping[Frontend, Target]:
        """The front ends, with their end points in the order in which they are drawn."""
        return self._frontends

    def change(self, frontends: Mapping[Frontend, Target | None], known: Mapping[str, bool]) -> str:
        """Return the script that gives front ends new targets, or removes them; `known` says so of cluster IPs."""
        before, after = Elements(), Elements()
        replaced = {frontend: self._frontends.get(frontend) for frontend in frontends}
        chains = Counter[str]()
        loops = Counter[str]()
        for frontend, target in frontends.items():
            old = replaced[frontend]
            if old is not None:
                before.update(_elements(frontend, old))
                chains.subtract(_chains(old))
                loops.subtract(backend.address for backend in old.backends)
            if target is None:
                self._frontends.pop(frontend, None)
                continue
            new = target._replace(backends=_arranged(old.backends if old is not None else (), target.backends))
            self._frontends[frontend] = new
            after.update(_elements(frontend, new))
            chains.update(_chains(new))
            loops.update(backend.address for backend in new.backends)
        for address, is_known in known.items():
            if is_known and address not in self._known:
                self._known.add(address)
                after[("known", address)] = ""
            elif not is_known and address in self._known:
                self._known.remove(address)
                before[("known", address)] = ""
        gone, come = _count(self._loops, loops)
        before.update((("loops", f"{address} . {address}"), "") for address in gone)
        after.update((("loops", f"{address} . {address}"), "") for address in come)
        unused, needed = _count(self._chains, chains)
        return "".join(
            [
                *(chain_rules(chain) for chain in needed),
                _commands("delete", {key: data for key, data in before.items() if after.get(key) != data}),
                _commands("add", {key: data for key, data in after.items() if before.get(key) != data}),
                *(remove_chain(chain) for chain in unused),
            ]
        )

    def whole(self, existing: Collection[str] = (), *, anew: bool = False) -> str:
        """Return the script that makes the table true, whatever it was. Clients keep their end points unless it is made `anew`.

        `existing` are the names of its chains.
        """
        elements = Elements()
        for frontend, target in self._frontends.items():
            elements.update(_elements(frontend, target))
        elements.update((("loops", f"{address} . {address}"), "") for address in self._loops)
        elements.update((("known", address), "") for address in self._known)
        return "".join(
            [
                f"add table {TABLE}\ndelete table {TABLE}\n" if anew else "",
                definition(self._setting),
                *(f"flush map {TABLE} {name}\n" for name in _MAPS),
                *(f"flush set {TABLE} {name}\n" for name in _SETS),
                *(chain_rules(chain) for chain in self._chains),
                _commands("add", elements),
                *(
                    remove_chain(chain)
                    for chain in ([] if anew else existing)
                    if _VARIABLE.fullmatch(chain) and chain not in self._chains
                ),
            ]
        )


def definition(setting: Setting) -> str:
    """Return the script that makes what is missing of the table, and its fixed rules."""
    return f"""
table {TABLE} {{
  map services {{ type ipv4_addr . inet_proto . inet_service : verdict; }}
  map endpoints {{ type ipv4_addr . inet_proto . inet_service . mark : ipv4_addr . inet_service; }}
  map choices {{ type ipv4_addr . inet_proto . inet_service . mark : mark; }}
  map slots {{ type ipv4_addr . inet_proto . inet_service . mark : ipv4_addr . inet_service; }}
  map clients {{ type ipv4_addr . ipv4_addr . inet_proto . inet_service : mark; flags dynamic, timeout; size {_CLIENTS}; }}
  map idles {{ type ipv4_addr . inet_proto . inet_service : verdict; }}
  set refused {{ type ipv4_addr . inet_proto . inet_service; }}
  set dropped {{ type ipv4_addr . inet_proto . inet_service; }}
  set limited {{ type ipv4_addr . inet_proto . inet_service; }}
  set sources {{ type ipv4_addr . inet_proto . inet_service . ipv4_addr; flags interval; }}
  set known {{ type ipv4_addr; }}
  set loops {{ type ipv4_addr . ipv4_addr; }}
  chain guarding {{ type filter hook prerouting priority mangle; policy accept; }}
  chain arriving {{ type nat hook prerouting priority dstnat; policy accept; }}
  chain entering {{ type filter hook input priority filter - 20; policy accept; }}
  chain passing {{ type filter hook forward priority filter - 20; policy accept; }}
  chain leaving {{ type nat hook postrouting priority srcnat; policy accept; }}
  chain unserved {{ }}
  chain refuse {{ }}
}}
flush table {TABLE}
table {TABLE} {{
  chain guarding {{
    ct state != new accept
    {_FRONTEND} @limited {_FRONTEND} . ip saddr != @sources drop
    {_FRONTEND} vmap @idles
  }}
  chain arriving {{
    {_FRONTEND} vmap @services
  }}
  chain entering {{
    jump unserved
  }}
  chain passing {{
    jump unserved
  }}
  chain unserved {{
    {_FRONTEND} @refused goto refuse
    {_FRONTEND} @dropped drop
    ip daddr != {{ {setting.service_cidr}, {setting.external_cidr} }} return
    tcp flags & (fin | syn | rst | ack) != syn goto refuse comment "of a connection that was forgotten"
    ip daddr @known goto refuse
    drop comment "a client that is quicker than its Service tries again"
  }}
  chain refuse {{
    meta l4proto tcp reject with tcp reset
    reject with icmp port-unreachable
  }}
  chain leaving {{
    ct status dnat ip saddr . ip daddr @loops masquerade comment "a pod that reaches itself"
    ct status dnat ip saddr {setting.machine} oifname "{setting.uplink}" masquerade comment "an end point elsewhere"
  }}
}}
"""


def chain_rules(chain: str) -> str:
    """Return the script that makes one of the chains that elements lead to, with its rules."""
    kind, count, seconds = _parts(chain)
    client = f"ip saddr . {_FRONTEND}"
    remembered = f"{{ {client} timeout {seconds}s : ct mark }}"
    made = ""
    match kind:
        case "n":
            rules = [
                f"ct mark set numgen random mod {count}",
                f"dnat to {_FRONTEND} . ct mark map @endpoints",
            ]
        case "a":
            rules = [
                f"ct mark set {client} map @clients",
                f"update @clients {remembered}",  # the time begins again
                f"dnat to {_FRONTEND} . ct mark map @slots",
                f"delete @clients {{ {client} : ct mark }}",
                f"ct mark set numgen random mod {count}",
                f"ct mark set {_FRONTEND} . ct mark map @choices",
                f"add @clients {remembered}",
                f"dnat to {_FRONTEND} . ct mark map @slots",
            ]
        case _:
            policy = f"protocol tcp; l3proto ip; policy = {{ established : {count * 60} }};"
            made = f"ct timeout {chain} {{ {policy} }}\n"
            rules = [f'ct timeout set "{chain}"']
    lines = "".join(f"{rule}\n" for rule in rules)
    return f"add chain {TABLE} {chain}\nflush chain {TABLE} {chain}\ntable {TABLE} {{\n{made}chain {chain} {{\n{lines}}}\n}}\n"


def remove_chain(chain: str) -> str:
    """Return the script that removes such a chain, which no element leads to any more."""
    removed = f"flush chain {TABLE} {chain}\ndelete chain {TABLE} {chain}\n"
    return removed + (f"delete ct timeout {TABLE} {chain}\n" if chain.startswith("idle") else "")


def _parts(chain: str) -> tuple[str, int, int]:
    """Return the kind of a chain and its two numbers."""
    kind, first, second = re.fullmatch(r"([a-z]+)([0-9]+)(?:t([0-9]+))?", chain, re.ASCII).groups()  # type: ignore[union-attr]
    return str(kind), int(first), int(second or 0)


def _chains(target: Target) -> Iterator[str]:
    """Yield the chains that the elements of a target lead to."""
    count = len(target.backends)
    if count:
        yield f"n{count}" if target.affinity is None else f"a{count}t{target.affinity}"
    if target.idle is not None:
        yield f"idle{target.idle}"


def _elements(frontend: Frontend, target: Target) -> Iterator[tuple[tuple[str, str], str]]:
    """Yield the elements of a front end."""
    key = f"{frontend.address} . {frontend.protocol} . {frontend.port}"
    if not target.backends:
        yield ("dropped" if target.dropped else "refused", key), ""
    for chain in _chains(target):
        yield ("idles" if chain.startswith("idle") else "services", key), f"goto {chain}"
    for number, backend in enumerate(target.backends):
        to = f"{backend.address} . {backend.port}"
        if target.affinity is None:
            yield ("endpoints", f"{key} . {number}"), to
        else:
            mark = int(ipaddress.IPv4Address(backend.address))
            yield ("choices", f"{key} . {number}"), str(mark)
            yield ("slots", f"{key} . {mark}"), to
    if target.sources is not None:
        yield ("limited", key), ""
        for source in target.sources:
            yield ("sources", f"{key} . {source}"), ""


def _arranged(old: tuple[Backend, ...], new: tuple[Backend, ...]) -> tuple[Backend, ...]:
    """Return new end points in an order in which as many as possible keep their places."""
    wanted, kept = set(new), set(old)
    added = [backend for backend in reversed(new) if backend not in kept]
    places: list[Backend | None] = [backend if backend in wanted else None for backend in old]
    for place, backend in enumerate(places):
        if backend is None and added:
            places[place] = added.pop()
    places += reversed(added)
    place = 0
    while place < len(places):  # those at the end move into the places that are still empty
        if places[place] is not None:
            place += 1
        elif (last := places.pop()) is not None:
            places[place] = last
    return tuple(backend for backend in places if backend is not None)


def _count(counts: Counter[str], by: Counter[str]) -> tuple[list[str], list[str]]:
    """Add `by` to `counts`; return the keys that are no longer above zero, and those that are now."""
    gone, come = [], []
    for key, number in by.items():
        before = counts[key]
        counts[key] = before + number
        if before <= 0 < counts[key]:
            come.append(key)
        elif counts[key] <= 0:
            del counts[key]
            if before > 0:
                gone.append(key)
    return gone, come


def _commands(verb: str, elements: Elements) -> str:
    """Return the commands that add or delete elements."""
    grouped: dict[str, list[str]] = {}
    for (name, key), data in elements.items():
        grouped.setdefault(name, []).append(f"{key} : {data}" if data else key)
    return "".join(
        f"{verb} element {TABLE} {name} {{ {', '.join(texts[start : start + _CHUNK])} }}\n"
        for name, texts in grouped.items()
        for start in range(0, len(texts), _CHUNK)
    )
