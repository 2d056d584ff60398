"""Container images: references, pulls from registries, and layers, unpacked and shared by digest.

In come an image reference and the credentials of a group. Out go the image's configuration and the folders of its
layers. Registries are not trusted: every document and every archive is checked and bounded.
"""
