"""Puts the adapters together; finds entry points."""

from __future__ import annotations


class Runner:
    """Placeholder until the engine stands."""


class AsyncRunner:
    """Placeholder until the engine stands."""
