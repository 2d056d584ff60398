"""The connections that the API server opens: to webhooks, to the endpoints of services, to kubelets.

A name or reference comes in (a service and port, a client configuration, a pod); an address, an answer or a stream goes
out. Failures become `Status` errors or `CallError`, which name what was called.
"""
