"""Discovery and OpenAPI: the documents that tell clients what is served.

The rows of the catalog and the published schemas come in; discovery documents, OpenAPI v3 and the version go out.
"""
