"""SPDY/3.1 (draft-mbelshe-httpbis-spdy-00 with the session window of 3.1), as Kubernetes carries its streams in it.

Kubernetes' own clients and servers (client-go, the kubelet) use half-closed streams, resets, pings and GOAWAY. They do not
use flow control: they neither send window updates nor respect windows. This implementation returns read data to the
peer's window. It respects the window of a peer that has used flow control.
"""

from cumulet.common.spdy.session import Send, Session, Stream

#: The name of the protocol in the header `Upgrade` (RFC 9110, section 7.8).
PROTOCOL = "SPDY/3.1"

__all__ = ["PROTOCOL", "Send", "Session", "Stream"]
