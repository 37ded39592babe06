"""The addresses of the API, a noun a module."""
