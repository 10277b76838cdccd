"""A person's hand on the relay: one file a command group."""
