"""Doors: parse, call the supervisor, render."""
