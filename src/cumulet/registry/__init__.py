"""Private registries, for docker, podman, buildah, skopeo, oras, `az acr` and whoever else pulls and pushes images.

It speaks the OCI Distribution Specification 1.1 with Azure Container Registry's way of logging in, checks every
principal with the identity room and every right with the front door's roles, and is the front door's provider of
`Microsoft.ContainerRegistry`. Several registries are told apart by the host name that they are called by.
"""
