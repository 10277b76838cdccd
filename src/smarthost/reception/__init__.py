"""The wing through which mail comes in."""
