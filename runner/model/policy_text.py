"""Policies in another language than runner's own rules."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class PolicyTexts:
    """All policies of one language in one folder: they are one policy, and speak together."""

    language: str
    """`cedar` or `rego`; also the name of the entry point that decides by them."""
    name: str
    """E.g. `organisation:/etc/runner/policy.d`."""
    files: tuple[tuple[str, str], ...]
    """Path and text of each, sorted by path."""
