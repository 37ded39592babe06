"""Reading JavaScript."""
