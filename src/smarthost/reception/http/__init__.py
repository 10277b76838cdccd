"""The HTTP door: an API for messages and for everything about them, by Litestar on uvicorn."""
