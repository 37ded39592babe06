"""Reading SQL."""
