"""From what init told to an `Ending`. Pure."""

from __future__ import annotations

import errno
import os
from typing import Any

from runner.backends.contents import change_of
from runner.backends.docker.conversation import Heard
from runner.errors import EXIT_NOT_FOUND, BackendError
from runner.model.limits import LimitName
from runner.model.outcome import Ending, Failure, Termination
from runner.model.usage import Usage

NOT_A_PROGRAM = frozenset(
    {
        errno.EACCES, errno.EISDIR, errno.ELOOP, errno.ENAMETOOLONG, errno.ENOEXEC, errno.EPERM,
    }
)  # fmt: skip
"""What execve(2) says of a file that is there and is none."""


def _crossed(stopped_for: str | None, limit: str | None) -> LimitName | None:
    """The limit that ended the run, by what this side stopped it for and what init says."""
    if stopped_for == "output":
        # Whether init had time to end the program for it or not: it was cut short.
        return LimitName.OUTPUT
    if limit is None:
        return None
    if limit != "told":
        return LimitName(limit)
    return LimitName.BUDGET if stopped_for == "budget" else None


def ending(heard: Heard, program: str) -> Ending:
    """What came of the run. BackendError: init said nothing, or could not set the program up."""
    ended = heard.ended
    if ended is None:
        raise BackendError("the sandbox's init told of no end")
    usage = _usage(ended["usage"])
    changes = tuple(change_of(change) for change in heard.changes)

    def end(termination: Termination, **more: Any) -> Ending:
        return Ending(
            termination, usage, changes=changes, changes_truncated=heard.changes_cut, **more
        )

    limit = ended["limit"]
    if heard.stopped_for == "cancelled" and limit == "told":
        return end(Termination.CANCELLED)
    if (crossed := _crossed(heard.stopped_for, limit)) is not None:
        return end(Termination.LIMIT, limit=crossed)
    if ended["failed_at"] == "setup":
        raise BackendError(
            f"the program's process could not be set up in the sandbox: "
            f"{os.strerror(ended['errno'])}"
        )
    if ended["failed_at"] == "exec":
        return end(
            Termination.EXITED,
            exit_code=EXIT_NOT_FOUND,
            failure=_not_executed(program, ended["errno"]),
        )
    status = ended["status"]
    if os.WIFSIGNALED(status):
        return end(Termination.SIGNALED, signal=os.WTERMSIG(status))
    return end(Termination.EXITED, exit_code=os.WEXITSTATUS(status))


def _not_executed(program: str, errno_code: int) -> Failure:
    """The same codes as the native backend gives."""
    if errno_code in (errno.ENOENT, errno.ENOTDIR):
        return Failure(
            "program_not_found",
            f"the program {program!r} is not in the sandbox's image, or its interpreter is not; "
            "check the name, or use an image that has it",
        )
    code = "program_not_found" if errno_code in NOT_A_PROGRAM else "program_not_started"
    return Failure(code, f"the program {program!r} can't be executed: {os.strerror(errno_code)}")


def _usage(told: dict[str, Any]) -> Usage:
    return Usage(
        wall_s=told["wall_s"],
        cpu_user_s=told["cpu_user_s"],
        cpu_system_s=told["cpu_system_s"],
        memory_peak_bytes=told["memory_peak_bytes"],
        processes=told["processes"],
    )
