"""Runs container groups for real, as Azure Container Instances does, for whoever comes by the front door.

It pulls images with the credentials of the group and no others, gives each group a network of its own, runs its
containers with runc under a supervisor that outlives this process, and keeps the bill. It is the front door's
provider of `Microsoft.ContainerInstance`.
"""
