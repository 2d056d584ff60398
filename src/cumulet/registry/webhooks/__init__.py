"""Webhooks: the events of pushes and deletions, and their delivery.

Changes of a registry come in and are stored as events. Signed HTTP requests go out in the background, until the receiver
accepts them or the attempts are used up.
"""
