"""Where results are kept."""

from __future__ import annotations

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
