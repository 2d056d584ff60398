"""The table of the machine's namespace for its own clients: node ports at 127.0.0.1, and EXTERNAL-IPs of a loopback range.

The machine's kernel sends packets for 127.0.0.0/8 to itself. They are translated as they leave a program: to the router's
address for a node port, and to the cluster IP for an EXTERNAL-IP. Their source becomes the machine's address at the uplink.
EXTERNAL-IPs of any other range need nothing, as they have a route.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping

from cumulet.common import router
from cumulet.common.config import Config
from cumulet.network.services.model import Backend, Frontend

#: Where the machine's clients of a front end are sent; `None` where nothing is any more.
Forwards = Mapping[Frontend, Backend | None]

_FRONTEND = "ip daddr . meta l4proto . th dport"


class MachineTable:
    """What is in the table, or will be when the scripts that were returned have run."""

    def __init__(self, config: Config) -> None:
        self._name = f"ip {router.clients_table_name(config)}"
        self._link = router.link_name(config)
        self._machine = router.machine_address(config)
        external = ipaddress.IPv4Network(config.external_cidr)
        self._loopback = external if external.is_loopback else None
        self._forwards: dict[Frontend, Backend] = {}

    def change(self, forwards: Forwards) -> str:
        """Return the script that gives front ends new destinations, or removes them."""
        deleted, added = [], []
        for frontend, to in forwards.items():
            before = self._forwards.pop(frontend, None)
            if to is not None:
                self._forwards[frontend] = to
            if before == to:
                continue
            if before is not None:
                deleted.append(_element(frontend, before))
            if to is not None:
                added.append(_element(frontend, to))
        return "".join(
            f"{verb} element {self._name} forwards {{ {', '.join(elements)} }}\n"
            for verb, elements in (("delete", deleted), ("add", added))
            if elements
        )

    def whole(self) -> str:
        """Return the script that makes the table anew."""
        elements = ", ".join(_element(frontend, to) for frontend, to in self._forwards.items())
        unknown = ""
        if self._loopback is not None:
            unknown = f"""
  chain unknown {{
    type filter hook output priority filter; policy accept;
    ip daddr {self._loopback} drop comment "no Service has this address"
  }}"""
        return f"""
add table {self._name}
delete table {self._name}
table {self._name} {{
  map forwards {{
    type ipv4_addr . inet_proto . inet_service : ipv4_addr . inet_service
    {f"elements = {{ {elements} }}" if elements else ""}
  }}
  chain leaving {{
    type nat hook output priority -100; policy accept;
    dnat to {_FRONTEND} map @forwards
  }}
  chain masking {{
    type nat hook postrouting priority srcnat; policy accept;
    oifname "{self._link}" ip saddr != {self._machine} ct status dnat snat to {self._machine}
  }}{unknown}
}}
"""


def _element(frontend: Frontend, to: Backend) -> str:
    return f"{frontend.address} . {frontend.protocol} . {frontend.port} : {to.address} . {to.port}"
