"""API servers behind this one: what an APIService registers is answered by the service that it names."""
