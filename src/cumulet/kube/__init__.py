"""The Kubernetes API server, for kubectl, Helm, client-go and every controller, ours and others'.

What is served is data: a table of resources, the published schemas, the columns that `get` prints. Objects are kept
as the JSON that is sent, in one SQL file; reads and watches are answered from memory.
"""
