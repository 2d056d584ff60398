"""The metadata: registries, repositories, manifests, tags, and the repositories that have each blob.

Records come in and go out; each write is one transaction of SQLite that checks locks, quota and references. `blob_links`
keeps bytes and metadata consistent, and `running_pushes` knows what a garbage collection must keep.
"""
