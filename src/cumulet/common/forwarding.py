"""Lets this machine forward packets, while an installation runs whose pods reach what the machine reaches.

The setting `net.ipv4.ip_forward` is the machine's. Where it was off, links that were there before do not begin to forward to each
other: a table of nftables drops that. Links that other programs make later, such as Docker's bridge, forward as they expect. The
last installation that ends puts the setting back.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import msgspec

from cumulet.common.nftables import AbsentError, Nftables

#: The nftables table, which is the machine's and not an installation's.
TABLE = "cumulet_forwarding"
#: The links that did not forward before, JSON; it exists while the setting is changed.
RECORD = Path("/run/cumulet/forwarding.json")
_SETTING = Path("/proc/sys/net/ipv4/ip_forward")
#: Characters that end a name in a script, or make a pattern of it. The kernel would take them; no program uses them.
_UNQUOTABLE = frozenset('"*\\')


def enable(own_links: str) -> None:
    """Turn forwarding on, if it is off. `own_links` is the prefix of the names of the installations' links.

    Raises `OSError`, `NftablesError`.
    """
    with _locked():
        if not RECORD.exists():
            if _SETTING.read_text().strip() != "0":
                return
            links = [name for _, name in socket.if_nameindex() if not name.startswith((own_links, "lo"))]
            RECORD.write_bytes(msgspec.json.encode(links))
        load()
        _SETTING.write_text("1")


def load() -> None:
    """Load the table again, if this module turned forwarding on. Raises `NftablesError`."""
    try:
        links = msgspec.json.decode(RECORD.read_bytes(), type=list[str])
    except FileNotFoundError:
        return
    with Nftables() as nftables:
        nftables.run_now(rules(links))


def restore(own_links: str) -> str | None:
    """Put the setting back, unless a link of another installation exists; return a line for it. Raises `OSError`, `NftablesError`."""
    if not RECORD.exists():
        return None
    with _locked():
        if any(name.startswith(own_links) for _, name in socket.if_nameindex()):
            return None
        _SETTING.write_text("0")
        with Nftables() as nftables, contextlib.suppress(AbsentError):
            nftables.run_now(f"delete table ip {TABLE}")
        RECORD.unlink(missing_ok=True)
    return "setting net.ipv4.ip_forward"


def rules(links: list[str]) -> str:
    """Return the script of the table, which drops what these links would forward to each other."""
    names = ", ".join(f'"{name}"' for name in links if _UNQUOTABLE.isdisjoint(name))
    content = f"elements = {{ {names} }};" if names else ""
    return f"""
add table ip {TABLE}
delete table ip {TABLE}
table ip {TABLE} {{
  set before {{ type ifname; {content} }}
  chain passing {{
    type filter hook forward priority filter - 10; policy accept;
    iifname @before oifname @before drop comment "this machine did not forward"
  }}
}}
"""


@contextlib.contextmanager
def _locked() -> Iterator[None]:
    """Exclude other installations."""
    RECORD.parent.mkdir(mode=0o711, exist_ok=True)
    descriptor = os.open(RECORD.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
