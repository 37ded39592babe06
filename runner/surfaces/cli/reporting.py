"""What came of a run, as the command line tells it: on stderr, as JSON, in a file."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from runner.errors import RequestError, RunnerError

if TYPE_CHECKING:
    from runner.model.approval import Approval
    from runner.model.decision import Decision
    from runner.model.outcome import Outcome
    from runner.model.usage import Usage


class SayAsked:
    """`ports.Observer`: says on stderr what is waited for."""

    def asked(self, approval: Approval) -> None:
        """What to type to answer."""
        from runner.surfaces.cli.served import say_asked  # noqa: PLC0415

        say_asked(approval.reason, approval.id)

    def decided(self, run_id: str, decision: Decision) -> None:
        """The outcome says it."""

    def used(self, usage: Usage) -> None:
        """The outcome says it."""


def check_result(result: str | None) -> None:
    """Found out before the run: afterwards it would be too late to choose another place."""
    if result is None:
        return
    folder = Path(result).absolute().parent
    writable = os.access(folder, os.W_OK | os.X_OK) or _is_device(Path(result))
    if not result or Path(result).is_dir() or not writable:
        raise RequestError(
            f"--result {result!r} can't be written: choose a file in a folder of yours"
        )


def teller(outcome: Outcome) -> Callable[..., dict[str, Any]]:
    """What tells it as JSON, `with_output` or without."""
    from runner.schema.outcome import outcome_document  # noqa: PLC0415

    return partial(outcome_document, outcome)


def report(
    outcome: Outcome, result: str | None, told: Callable[..., dict[str, Any]], *, as_json: bool
) -> None:
    """Say what came of a run; `told`: the outcome as JSON, `with_output` or without."""
    if result is not None:
        _write_result(result, told(with_output=False))
    if as_json:
        print(json.dumps(told(with_output=True), indent=2))
        return
    if outcome.decision.rewrite is not None:
        print(f"runner: rewrite: {outcome.decision.reason}", file=sys.stderr)
    if line := _closing_line(outcome):
        print(f"runner: {line}", file=sys.stderr)
    for left in outcome.left:
        print(f"runner: left: {left}", file=sys.stderr)


def _closing_line(outcome: Outcome) -> str | None:
    """What the program could not say by itself; nothing for a run that ended by itself."""
    match outcome.termination.value:
        case "denied":
            return f"{outcome.decision.effect.value}: {outcome.decision.reason}"
        case "limit":
            if outcome.budget is not None:
                from runner.charging import told  # noqa: PLC0415

                return f"limit: budget ended the run {outcome.run_id}: {told(outcome.budget)}"
            return f"limit: {outcome.limit} ended the run {outcome.run_id}"
        case "cancelled" if outcome.kill is not None:
            from runner.killing import told as kill_told  # noqa: PLC0415

            return f"killed: the run {outcome.run_id} was ended: {kill_told(outcome.kill)}"
        case "cancelled":
            return f"cancelled: the run {outcome.run_id} was ended"
        case _:
            return outcome.failure.message if outcome.failure is not None else None


def report_failure(error: RunnerError, result: str | None, *, as_json: bool) -> None:
    """Say it where the outcome would have been said."""
    from runner.model.outcome import Outcome  # noqa: PLC0415
    from runner.schema.outcome import outcome_document  # noqa: PLC0415

    document: dict[str, Any]
    if isinstance(error.outcome, Outcome):
        document = outcome_document(error.outcome, with_output=as_json)
    else:
        document = {"run_id": None, "error": {"code": error.code, "message": str(error)}}
    if result is not None:
        _write_result(result, document)
    if as_json:
        print(json.dumps(document, indent=2))


def _write_result(result: str, document: dict[str, Any]) -> None:
    """Whole or not at all, for somebody may be waiting for the file; a device is never replaced."""
    text = json.dumps(document, indent=2) + "\n"
    target = Path(os.path.realpath(result))
    fresh = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        if _is_device(Path(result)):
            Path(result).write_text(text)
            return
        fresh.write_text(text)
        fresh.replace(target)
    except OSError as error:
        fresh.unlink(missing_ok=True)
        raise RunnerError(f"the result can't be written to {result!r}: {error.strerror}") from error


def _is_device(path: Path) -> bool:
    """Whether something other than a file or folder is there: /dev/stdout, /dev/null, a FIFO."""
    return path.exists() and not path.is_file() and not path.is_dir()
