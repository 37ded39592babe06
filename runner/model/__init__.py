"""The nouns: frozen dataclasses, one noun a file. No I/O, no clock, no environment."""
