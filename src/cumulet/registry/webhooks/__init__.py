"""Webhooks: the events of pushes and deletions, and their delivery.

What happened in a registry comes in and is stored as an event; signed HTTP requests go out in the background until the
receiver accepts them.
"""
