"""A state folder's redactor: its marks are made with a key that is kept there."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from runner.audit.redact_patterns import Pattern
from runner.audit.redaction import Redactor
from runner.stores.secret_file import SecretFile

KEY_PATH = Path("keys", "redaction.key")


def redactor_of(home: Path, patterns: Sequence[Pattern] = ()) -> Redactor:
    """What takes the place of secrets is the same in everything that this folder keeps.

    Nothing is read or made before something has to be redacted; RecordError then, if it can't be.
    """
    return Redactor(SecretFile(home / KEY_PATH).get, patterns)
