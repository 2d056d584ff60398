"""The Kubernetes API server, for kubectl, Helm, client-go and every controller.

HTTP requests come in from any Kubernetes client; objects, lists, watches and `Status` errors go out. What is served is
data: a table of resources, the published schemas, the columns that `get` prints. Objects are kept as the JSON that is
sent, in one SQL file; reads and watches are answered from memory. `api` takes a request from top to bottom through the
folders; a folder imports only from the layers below its own (`docs/architecture.md` has them).
"""
