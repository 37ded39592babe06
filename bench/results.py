"""Where results are kept."""

from __future__ import annotations

import argparse
import getpass
import json
from pathlib import Path

import machine

RESULTS = machine.ROOT / "bench" / "results"


def write(out: Path, document: dict[str, object]) -> None:
    """Write a result as JSON, or end with a sentence that says why not."""
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps(document, indent=2) + "\n")
    except OSError as error:
        raise SystemExit(
            f"bench: {out} can't be written ({error.strerror}); give --out FILE"
        ) from error


def parser(name: str, description: str | None) -> argparse.ArgumentParser:
    """The options that all measurements have."""
    found = argparse.ArgumentParser(prog=f"bench {name}", description=description)
    found.add_argument("--out", type=Path, metavar="FILE", help="instead of bench/results/…")
    found.add_argument(
        "--show", type=Path, metavar="FILE", help="only print a result's table in Markdown"
    )
    return found


def destination(name: str, given: Path | None, described: dict[str, object]) -> Path:
    """Where a result goes; that it can is found out before, not after, all was measured."""
    day = str(described["time"])[:10]
    out = given or RESULTS / f"{name}-{getpass.getuser()}-{day}.json"
    write(out, {})
    return out
