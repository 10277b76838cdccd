"""Word goes out: what applications hear of their mail."""
