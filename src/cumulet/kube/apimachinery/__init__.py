"""Terms that every folder uses, as in upstream's `k8s.io/apimachinery`.

Text comes in (quantities, durations, regular expressions, names, header values); typed values and text go out.
`status` has the errors of the API: the client reads what a lower layer raises.
"""
