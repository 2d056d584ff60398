"""The resources that are served: the built-in table, and the custom resources that definitions add.

A group, version and resource come in; a `Row` goes out, which drives routing, discovery and storage. What is done to an
object of a kind on its way to the store (`kinds`), and its conversion between versions, are here for all kinds alike.
"""
