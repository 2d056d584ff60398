"""The bytes: blobs under their digests, and uploads that become blobs.

Bytes come in piece by piece; a blob goes out once it is whole, verified and durable. `store` is the contract that each
back end meets, `filesystem` the back end. Nothing here knows of repositories or callers.
"""
