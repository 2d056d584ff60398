"""The HTTP API: the resource provider `Microsoft.ContainerInstance`, its metrics, and its WebSockets.

In come ARM requests of the front door and the WebSockets of exec, attach and port-forward. Out go resources with their instance
views, logs, Azure Monitor metrics, the usage details, and the bytes of streams. It keeps no state of its own.
"""
