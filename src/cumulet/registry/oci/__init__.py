"""The terms of the OCI Distribution Specification: the grammar of names and digests, and its errors.

Text of a request comes in; a checked name, tag or digest goes out, or an `OciError`, which is a response.
"""
