"""One version of a custom kind: its structural schema, validation rules, columns and sub-resources.

The input is a version of a CustomResourceDefinition. The output is a `Custom`, which prunes, defaults and validates
objects and makes the cells of a table. The folder `catalog` handles the definitions and their resources.
"""
