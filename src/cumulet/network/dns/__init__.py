"""The cluster's name server, which answers from the watched objects, in CoreDNS's place."""
