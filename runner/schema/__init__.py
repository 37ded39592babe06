"""Pydantic models of everything that comes from outside, and the way to runner.model."""
