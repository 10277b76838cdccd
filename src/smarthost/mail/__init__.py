"""Words: the types that everything else speaks in; pure, and imports nothing of ours."""
