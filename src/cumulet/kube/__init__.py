"""The Kubernetes API server, for kubectl, Helm, client-go and every controller.

HTTP requests come in from any Kubernetes client; objects, lists, watches and `Status` errors go out. Tables drive the
server: the table of resources, the published schemas, the columns of `kubectl get`. Objects are stored as the JSON of
their responses, in one SQL file; reads and watches are answered from memory. `api` takes a request through the
folders; a folder imports only from the layers below its own (`docs/architecture.md` has them).
"""
