"""What a run changed, and what came of applying it, as they are told."""

from __future__ import annotations

from dataclasses import dataclass

from runner.changes.plan import Fate, Result
from runner.errors import EXIT_DENIED, EXIT_RUNNER
from runner.model.outcome import Change


@dataclass(frozen=True, slots=True)
class RunChanges:
    """What a run changed, and what is left of it to apply."""

    run_id: str
    directory: str
    changes: tuple[Change, ...]
    """All of the list; when nothing is kept any more, as many as the log has."""
    left: tuple[int, ...]
    """Numbers in `changes` of those that are neither applied nor discarded."""
    truncated: bool
    """Whether the run changed more than is listed."""
    gone: str | None
    """Why nothing is kept, in a clause; None: something is."""


@dataclass(frozen=True, slots=True)
class Applied:
    """What became of the changes that were to be applied."""

    run_id: str
    directory: str
    dry_run: bool
    """True: nothing was touched; `applied` means that it would be."""
    results: tuple[Result, ...]
    """In the order of their paths."""
    left: int
    """Changes of the run that are not applied after this."""

    @property
    def status(self) -> int:
        """The exit code of `runner apply`: 0 all is applied, 126 refused, 125 failed, 1 else."""
        fates = {result.fate for result in self.results}
        if Fate.FAILED in fates:
            return EXIT_RUNNER
        if fates & {Fate.DENIED, Fate.PROTECTED}:
            return EXIT_DENIED
        return 0 if fates <= {Fate.APPLIED, Fate.ALREADY} else 1
