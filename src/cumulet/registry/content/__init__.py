"""The content store: blobs by digest, and uploads that become blobs.

Bytes come in piece by piece. A blob goes out once it is complete, verified and durable. `store` is the contract of every
back end, and `filesystem` is the back end. This folder has no notion of repositories or callers.
"""
