"""Authentication and authorization: the caller of a request, and the caller's rights in a registry.

Credentials come in (Basic, Bearer, a refresh token); a `Principal` with its `Rights`, or a token of ACR's exchange, goes
out. `guard` stands before every request of the data plane.
"""
