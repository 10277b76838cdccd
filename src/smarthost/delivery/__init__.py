"""The wing through which mail goes out."""
