"""Other registries: the client that pulls from them, image import, and the pull-through cache.

A reference to an image elsewhere comes in; verified blobs and manifests go into the catalog, blobs first.
"""
