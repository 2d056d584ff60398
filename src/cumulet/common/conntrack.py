"""Forgets connections that the kernel tracks in a network namespace (`nfnetlink_conntrack.h` of Linux).

What was established with an address stays accepted while the kernel remembers it. So it must forget an address before somebody
else gets it, and the translation of datagrams before another end point answers them.
"""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import struct
from pathlib import Path

from cumulet.common.namespaces import inside
from cumulet.common.netlink import NETFILTER, Netlink, attribute, nested

#: `NFNL_SUBSYS_CTNETLINK << 8 | IPCTNL_MSG_CT_DELETE`, and `nfgenmsg` of IPv4.
_DELETE, _IPV4 = 1 << 8 | 2, struct.pack("=BBH", 2, 0, 0)
#: `CTA_TUPLE_ORIG`, `CTA_TUPLE_REPLY` and `CTA_FILTER`; in a tuple `CTA_TUPLE_IP`, in that `CTA_IP_V4_SRC`.
_ORIGINAL, _REPLY, _FILTER = 1, 2, 25
_ADDRESSES, _SOURCE = 1, 1
#: `CTA_FILTER_ORIG_FLAGS` and `CTA_FILTER_REPLY_FLAGS`; the flag is that of the source address.
_FILTERS = {_ORIGINAL: 1, _REPLY: 2}
_BY_SOURCE = 1
#: What a kernel that tracks SCTP has.
_SCTP = Path("/proc/sys/net/netfilter/nf_conntrack_sctp_timeout_established")


def forget(namespace: str | None, address: ipaddress.IPv4Address) -> None:
    """Forget all connections from an address, and those to it, also the ones that were translated to it.

    A kernel before Linux 5.8 cannot select connections by address, and keeps them until they time out. Raises `OSError`.
    """
    inside(namespace, lambda: _forget(address))


def delete(kernel: Netlink, wanted: bytes) -> None:
    """Forget the IPv4 connections that attributes select, if there are any, by a connection of the family `NETFILTER`.

    A kernel before Linux 5.8 cannot select connections, and keeps them until they time out. Raises `OSError`.
    """
    with contextlib.suppress(FileNotFoundError):  # there was none
        try:
            kernel.call(_DELETE, _IPV4 + wanted)
        except OSError as error:
            if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL):
                raise


def tracks_sctp() -> bool:
    """Return whether the kernel tracks connections of SCTP, so that it can translate their addresses."""
    return _SCTP.exists()


def _forget(address: ipaddress.IPv4Address) -> None:
    with Netlink(NETFILTER) as kernel:
        for tuple_kind, filter_kind in _FILTERS.items():
            source = nested(_ADDRESSES, attribute(_SOURCE, address.packed))
            other = next(kind for kind in _FILTERS.values() if kind != filter_kind)
            flags = (attribute(filter_kind, struct.pack("=I", _BY_SOURCE)), attribute(other, struct.pack("=I", 0)))
            wanted = nested(tuple_kind, source) + nested(_FILTER, *flags)
            delete(kernel, wanted)
