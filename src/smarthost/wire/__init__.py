"""Bytes to words and words to bytes, without sockets or clocks."""
