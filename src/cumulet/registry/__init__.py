"""Private registries, for docker, podman, buildah, skopeo, oras, `az acr` and every other OCI client.

Requests come in for the OCI Distribution Specification 1.1 and for ACR's token exchange and data plane. The front door
sends requests for the provider `Microsoft.ContainerRegistry`. Images, tokens and ARM resources go out. The identity room
verifies each principal, and the front door's roles decide its rights. The host name of a request selects the registry.
A folder imports only from the layers below its own (`docs/architecture.md` lists them).
"""
