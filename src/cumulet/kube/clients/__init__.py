"""The connections that the API server opens: to webhooks, endpoints of services, and kubelets.

A reference comes in (a service and port, a client configuration, a pod); an address, a response or a stream goes out.
Failures become `Status` errors or `CallError`, which name the called server.
"""
