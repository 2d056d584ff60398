"""Makes the kernel forget to which end point it translated datagrams (`nfnetlink_conntrack.h` of Linux).

The translation of the first datagram holds for all that follow from the same port. A client that never pauses would send to an
end point that is gone for ever.
"""

from __future__ import annotations

import ipaddress
import socket
import struct
from collections.abc import Iterable

from cumulet.common import conntrack
from cumulet.common.namespaces import inside
from cumulet.common.netlink import NETFILTER, Netlink, attribute, nested
from cumulet.network.services.model import Backend, Frontend

#: `CTA_TUPLE_ORIG`, `CTA_TUPLE_REPLY`, `CTA_FILTER`; in a tuple `CTA_TUPLE_IP`, `CTA_TUPLE_PROTO`.
_ORIGINAL, _REPLY, _FILTER = 1, 2, 25
_ADDRESSES, _PROTOCOL = 1, 2
_SOURCE, _DESTINATION = 1, 2
_NUMBER, _SOURCE_PORT, _DESTINATION_PORT = 1, 2, 3
#: `CTA_FILTER_ORIG_FLAGS` and `CTA_FILTER_REPLY_FLAGS`, and the flags of what they compare.
_ORIGINAL_FLAGS, _REPLY_FLAGS = 1, 2
_BY_SOURCE, _BY_DESTINATION, _BY_NUMBER, _BY_SOURCE_PORT, _BY_DESTINATION_PORT = 1, 2, 8, 16, 32


def forget(namespace: str, translations: Iterable[tuple[Frontend, Backend]]) -> None:
    """Forget all flows of datagrams to a front end that an end point gets. Raises `OSError`.

    A kernel before Linux 5.8 cannot select flows, and keeps them until they pause for two minutes.
    """
    inside(namespace, lambda: _forget(translations))


def _forget(translations: Iterable[tuple[Frontend, Backend]]) -> None:
    with Netlink(NETFILTER) as kernel:
        for frontend, backend in translations:
            to = _tuple(_ORIGINAL, _DESTINATION, frontend.address, _DESTINATION_PORT, frontend.port)
            by = _tuple(_REPLY, _SOURCE, backend.address, _SOURCE_PORT, backend.port)
            compared = nested(
                _FILTER,
                attribute(_ORIGINAL_FLAGS, struct.pack("=I", _BY_DESTINATION | _BY_NUMBER | _BY_DESTINATION_PORT)),
                attribute(_REPLY_FLAGS, struct.pack("=I", _BY_SOURCE | _BY_NUMBER | _BY_SOURCE_PORT)),
            )
            conntrack.delete(kernel, to + by + compared)


def _tuple(kind: int, side: int, address: str, port_side: int, port: int) -> bytes:
    return nested(
        kind,
        nested(_ADDRESSES, attribute(side, ipaddress.IPv4Address(address).packed)),
        nested(
            _PROTOCOL,
            attribute(_NUMBER, struct.pack("=B", socket.IPPROTO_UDP)),
            attribute(port_side, struct.pack(">H", port)),
        ),
    )
