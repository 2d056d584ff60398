"""The terms that every folder uses and none owns, as in upstream's `k8s.io/apimachinery`.

Text comes in (quantities, durations, regular expressions, names, header values); typed values and text go out.
`status` holds the errors of the API: what a lower layer raises is what the client reads.
"""
