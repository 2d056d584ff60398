"""Code that several rooms need: serving, TLS, the SQLite file, logging, and the clients of the protocols.

Rooms import from here and never from each other. This package imports no room. `import-linter` checks both.
"""
