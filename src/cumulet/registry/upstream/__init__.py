"""Other registries: the client that pulls from them, image import, and the pull-through cache.

References to images in other registries come in. Verified blobs and manifests go into the catalog, blobs first.
"""
