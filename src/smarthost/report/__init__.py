"""Watchers: event feed, mail log, metrics."""
