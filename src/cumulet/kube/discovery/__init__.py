"""Discovery and OpenAPI: the documents about the served resources.

The rows of the catalog and the published schemas come in; discovery documents, OpenAPI v2 and v3, and the version go
out.
"""
