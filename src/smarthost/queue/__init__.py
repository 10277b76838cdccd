"""The hall where mail that came in waits to go out."""
