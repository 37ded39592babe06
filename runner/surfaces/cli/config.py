"""`runner config` and `runner clean`."""

from __future__ import annotations

import json
import sys
from typing import Annotated

import typer

config_app = typer.Typer(
    help="Settings and where they come from.", no_args_is_help=True, rich_markup_mode=None
)


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.add_typer(config_app, name="config")
    app.command("clean")(clean)


@config_app.command()
def show(
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON object.")] = False,
) -> None:
    """Every setting, its value and its origin."""
    from runner.settings import SETTING_NAMES, load_settings  # noqa: PLC0415

    settings = load_settings()
    rows = {}
    for name in SETTING_NAMES:
        setting = getattr(settings, name)
        value = setting.value
        shown = [_shown(each) for each in value] if isinstance(value, tuple) else value
        rows[name] = {"value": shown if isinstance(shown, list | int) else str(shown),
                      "origin": setting.origin}  # fmt: skip
    if as_json:
        print(json.dumps(rows, indent=2))
        return
    for name, row in rows.items():
        value = row["value"]
        print(f"{name:18} {':'.join(value) if isinstance(value, list) else value}")
        print(f"{'':18}   from {row['origin']}")


def _shown(value: object) -> str:
    """A folder's path, a pattern's text."""
    pattern = getattr(value, "pattern", None)
    return str(getattr(value, "path", value) if pattern is None else pattern.pattern)


def clean() -> None:
    """Remove what dead supervisors left, and kept output past its bounds; close open records."""
    from runner.app import Runner  # noqa: PLC0415

    with Runner() as runner:
        recovered = runner.recovered
        swept = runner.sweep()
    for run_id in recovered:
        print(f"closed as unknown: {run_id}")
    for line in swept.removed:
        print(f"removed: {line}")
    for line in swept.left:
        print(f"runner: left: {line}", file=sys.stderr)
    if swept.left:
        raise typer.Exit(1)
    if not recovered and not swept:
        print("nothing was left")
