"""A test upstream that misbehaves on request."""
