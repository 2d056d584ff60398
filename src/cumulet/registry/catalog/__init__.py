"""The metadata: registries, repositories, manifests, tags, and the repositories that have each blob.

Records come in and go out. Each write is one SQLite transaction that checks locks, quota and references. `blob_links`
keeps bytes and metadata consistent, and `running_pushes` tracks the blobs that a garbage collection must keep.
"""
