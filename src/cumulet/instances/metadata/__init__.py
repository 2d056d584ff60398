"""Stands in for Azure's instance metadata service, for the containers of groups: who they are, and tokens of their identities.

It listens in the router's namespace, at Azure's address. A caller is the group that has its source address, which the group's port
at the router enforces. Nothing that a caller sends names another group.
"""
