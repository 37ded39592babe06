"""`runner policy rules`: the rule library, for people who choose from it."""

from __future__ import annotations

import textwrap
from typing import Annotated

import typer

_WIDTH = 100

HELP = """List the rule sets that a profile can include, or show one set's rules.

\b
  runner policy rules                    every set, with what it is for
  runner policy rules git-history        its rules: effect, why, what each catches and lets pass

Take a set into a profile or policy with `rules: { include: [git-history] }`, and leave a rule out
with `without`. An organisation's own sets stand in /etc/runner/rules.d.
"""


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("rules", help=HELP)(rules)


def rules(
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", show_default=False)] = None,
) -> None:
    """List sets, or show one; see HELP."""
    from runner.schema.library import LIBRARY  # noqa: PLC0415

    if name is None:
        for entry in LIBRARY.entries():
            told = entry.error or f"{entry.description} ({entry.rules} rules)"
            _say(f"{entry.name:14} ", told)
        return
    found = LIBRARY.load(name)
    print(f"{found.name}: {found.description}\n{found.source}")
    for each in found.rules:
        print(f"\n{each.rule.id} ({each.rule.effect.value})")
        _say("  why      ", each.reason or "not said")
        _say("  instead  ", each.rule.message or "not said")
        for label, texts in (("catches", each.catches), ("passes", each.passes)):
            for text in texts:
                print(f"  {label:8} {text}")


def _say(head: str, text: str) -> None:
    print(textwrap.fill(text, _WIDTH, initial_indent=head, subsequent_indent=" " * len(head),
                        break_long_words=False, break_on_hyphens=False))  # fmt: skip
