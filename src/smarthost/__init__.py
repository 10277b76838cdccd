"""smarthost: the SMTP relay that applications point at."""

__version__ = "0.1.0"
