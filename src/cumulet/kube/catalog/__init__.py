"""The served resources: the built-in table, and the custom resources of definitions.

A group, version and resource come in; a `Row` goes out, which drives routing, discovery and storage. The steps of an
object on its way to the store (`kinds`), and conversion between versions, are here for all kinds.
"""
