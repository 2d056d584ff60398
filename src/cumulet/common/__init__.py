"""What several rooms need and no room owns: serving, TLS, the SQL file, logging, and the clients of the protocols.

Nothing here knows a room. A room imports from here and never from another room; `import-linter` holds that.
"""
