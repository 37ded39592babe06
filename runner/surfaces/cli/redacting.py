"""`runner audit redact-test`: what would be redacted."""

from __future__ import annotations

import shlex
import sys
from typing import Annotated

import typer

from runner.errors import RequestError

_MOST_BYTES = 16 << 20  # more than anybody tries patterns on


def register(audit_app: typer.Typer) -> None:
    """Add the command."""
    audit_app.command("redact-test", context_settings={"ignore_unknown_options": True})(redact_test)


def redact_test(
    words: Annotated[
        list[str] | None,
        typer.Argument(metavar="[-- WORD...]", help="A command's words, instead of stdin."),
    ] = None,
) -> None:
    """Print a text from stdin, or a command, as it would be recorded.

    Without its secrets: those of known shapes, and what the setting redact_patterns says. Marks are
    made with this state folder's key, so they are the ones that stand in its log. Which kinds were
    found, and in which lines, goes to stderr. Nothing is recorded.

        echo 'deploy --token abc' | runner audit redact-test

        runner audit redact-test -- curl -u me:secret https://example.com
    """
    from runner.settings import load_settings  # noqa: PLC0415
    from runner.stores.home import prepare_home  # noqa: PLC0415
    from runner.stores.redacting import redactor_of  # noqa: PLC0415

    settings = load_settings()
    redactor = redactor_of(prepare_home(settings.home.value), settings.redact_patterns.value)
    if words:
        print(shlex.join(redactor.words(words)))
        return
    data = sys.stdin.buffer.read(_MOST_BYTES + 1)
    if len(data) > _MOST_BYTES:
        raise RequestError(f"stdin is longer than {_MOST_BYTES >> 20} MiB: try a part of it")
    text = data.decode("latin-1")
    found = redactor.find(text)
    sys.stdout.buffer.write(redactor.replaced(text, found).encode("latin-1"))
    sys.stdout.flush()
    for each in found:
        print(f"line {text.count(chr(10), 0, each.start) + 1}: {each.kind}", file=sys.stderr)
