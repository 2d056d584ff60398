"""The kernel's side of a group: network, firewall, user namespace, mounts and volumes, and the names of them all.

In come a group's uid, address, virtual network and volumes. Out go a network namespace, a user namespace, and paths to
bind into containers. Nothing here starts a container.
"""
