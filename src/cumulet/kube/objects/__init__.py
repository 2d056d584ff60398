"""The life of an object: create, update, patch, apply, delete; get, list and watch.

A target and a body come in; the object passes conversion, pruning, defaults, field ownership, admission and
validation, in this order, and goes to the store. Reads and watches come out of the store's memory. Everything that
writes, the server itself included, writes through `write.Objects`.
"""
