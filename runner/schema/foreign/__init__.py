"""Policies of other tools, carried over into runner's rules: never wider without a word."""
