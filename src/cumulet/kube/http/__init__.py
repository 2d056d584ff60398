"""The HTTP side of a request: its target, options and body, and the form of the response.

An aiohttp request comes in; a typed target, checked options, a decoded body and the context of a write go out. An
object or a list comes back and leaves in the form that the client accepts. The audit log and the reverse proxy are
here.
"""
