"""Who may use which profiles, and how much of them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class CallBudget:
    """At most `calls` runs begin within any `window_s` seconds; denied ones count too."""

    calls: int
    """1 or more."""
    window_s: float


@dataclass(frozen=True, slots=True)
class Grant:
    """Principals that match all that is stated may use these profiles.

    A layer that states grants refuses what none of them covers. An agent that another one started
    needs a grant for itself and for its parent: nobody hands on more than it has.
    """

    profiles: tuple[str, ...]
    """Globs over profile names, or over paths for a profile that is given as a file."""
    agents: tuple[str, ...] = ()
    """Globs; empty here and below: not stated."""
    tenants: tuple[str, ...] = ()
    uids: tuple[int, ...] = ()
    labels: tuple[tuple[str, str], ...] = ()
    """Each label is there with a value that the glob matches."""
    budget: CallBudget | None = None
    """Of each agent that it covers by itself, with the runs of those that it started; None: the
    grant states none, and what others state still holds."""
