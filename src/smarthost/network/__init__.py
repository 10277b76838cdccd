"""Sockets: DNS, sessions to other mail servers."""
