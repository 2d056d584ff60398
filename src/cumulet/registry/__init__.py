"""Private registries, for docker, podman, buildah, skopeo, oras, `az acr` and every other OCI client.

Requests come in for the OCI Distribution Specification 1.1, for ACR's token exchange and data plane, and from the front
door for the provider `Microsoft.ContainerRegistry`; images, tokens and ARM resources go out. Every principal is checked
with the identity room and every right with the front door's roles. Several registries are told apart by host name. A
folder imports only from the layers below its own (`docs/architecture.md` has them).
"""
