"""The OCI Distribution Specification 1.1 over HTTP: manifests, blobs, uploads, tags and referrers.

A request on `/v2/` comes in; `routes` finds the repository and the right that it takes, and calls the handler. The
bodies of uploads go to `content`, and what manifests say goes to `catalog`.
"""
