"""The resource provider `Microsoft.ContainerRegistry`: registries and their child resources, for the front door.

ARM requests come in from the front door, which has authorized them. Resources in ARM's JSON form go out.
"""
