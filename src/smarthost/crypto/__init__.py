"""Keys: DKIM signatures, TLS contexts, password hashes."""
