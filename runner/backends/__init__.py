"""Adapters that build sandboxes: one package each, none imports another."""
