"""Authentication and authorization: the caller of a request, and the caller's rights.

A certificate, a token or impersonation headers come in; a `User` goes out. A `User` and the `Attributes` of a request
come in; a decision goes out, by RBAC and the node authorizer. The default roles of a new cluster are here too.
"""
