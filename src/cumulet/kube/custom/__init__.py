"""One version of a custom kind: its structural schema, validation rules, columns and sub-resources.

A version of a CustomResourceDefinition comes in and becomes a `Custom`, which prunes, defaults and validates objects and
makes the cells of a table. The definitions themselves, and the rows that they add, are in `catalog`.
"""
