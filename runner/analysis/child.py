"""The other end of `runner.analysis.worker`: reads one text, says what was found, ends.

Run by a Python of its own, with limits that its parent sets; imports only the reader it is asked
for.
"""

from __future__ import annotations

import importlib
import json
import sys

READERS = {
    "python": ("runner.analysis.python.text", "read_python"),
    "javascript": ("runner.analysis.javascript.text", "read_javascript"),
}


def main(language: str) -> None:
    """Read text in `language` from stdin; JSON on stdout: findings, and a problem or null."""
    text = sys.stdin.buffer.read().decode("utf-8", "surrogatepass")
    module, function = READERS[language]
    try:
        found, problem = getattr(importlib.import_module(module), function)(text)
    except (RecursionError, MemoryError):
        found, problem = [], "the text is nested too deep to read"
    sys.stdout.write(json.dumps([found, problem]))
