"""The OCI Distribution Specification 1.1 over HTTP: manifests, blobs, uploads, tags and referrers.

Requests on `/v2/` come in. `routes` reads the repository, checks the right, and calls the handler. The bodies of uploads
go to `content`, and parsed manifests go to `catalog`.
"""
