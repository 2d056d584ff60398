"""SPDY/3.1 (draft-mbelshe-httpbis-spdy-00 with the session window of 3.1), as Kubernetes carries its streams in it.

Kubernetes' own ends (client-go, the kubelet) use streams that either end ends for itself, resets, pings and the farewell, and
no flow control: they neither send nor heed window updates. Here what was read is always given back to the window of the
other end, and the window of one that has shown that it keeps one is heeded.
"""

from cumulet.common.spdy.session import Send, Session, Stream

#: The name of the protocol in the header `Upgrade` (RFC 9110, section 7.8).
PROTOCOL = "SPDY/3.1"

__all__ = ["PROTOCOL", "Send", "Session", "Stream"]
