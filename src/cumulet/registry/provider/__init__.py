"""The resource provider `Microsoft.ContainerRegistry`: registries and what is below them, for the front door."""
