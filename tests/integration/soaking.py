"""Starting the long scripts for a short while, on runner as it is and on a broken one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"


def soaked(
    script: str, tmp_path: Path, *words: str, broken: str | None = None
) -> tuple[int, dict[str, Any], str]:
    """The script's exit code, its summary, and what it printed.

    `broken`: Python that each interpreter runs as it starts, the script's own among them.
    """
    summary = tmp_path / "summary.json"
    environment = dict(os.environ)
    if broken is not None:
        custom = tmp_path / "custom"
        custom.mkdir()
        (custom / "sitecustomize.py").write_text(broken)
        paths = [str(custom), os.environ.get("PYTHONPATH")]
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
    done = subprocess.run(
        [sys.executable, SCRIPTS / script, *words, "--json", summary],
        env=environment,
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    said = done.stdout + done.stderr
    return done.returncode, json.loads(summary.read_text()) if summary.exists() else {}, said
