"""The durable store: interface, SQLite, content files, recovery."""
