"""The error tree: every way in which runner can fail to do its work.

A denial or a crossed limit is a *result* and never one of these. Each error carries a code
from a closed list (`code`, the API's word for it) and the exit code that the command line
ends with. This module imports nothing.
"""

EXIT_USAGE = 2
EXIT_LIMIT = 124
EXIT_RUNNER = 125
EXIT_DENIED = 126
EXIT_NOT_FOUND = 127
EXIT_CANCELLED = 130
EXIT_KILLED = 137


class RunnerError(Exception):
    """Something kept runner from doing its work; the message says what, where and what to do."""

    code = "runner_failed"
    exit_code = EXIT_RUNNER
    http_status = 503
    outcome: object = None
    """The `Outcome` that was recorded (`runner_failed`), when the run had begun."""
    run_id: str | None = None
    """Of a run that a server tells this of, when it had begun."""


class BadInputError(RunnerError):
    """What the caller gave is wrong; nothing was run."""

    code = "bad_request"
    exit_code = EXIT_USAGE
    http_status = 400


class RequestError(BadInputError):
    """The request itself is wrong: a missing script, a folder that is not there, a bad limit."""


class UnauthenticatedError(BadInputError):
    """Who calls an API could not be told: no credential, or none that is taken.

    Whether it is unknown, revoked or ended is not told: that is nobody's business but its owner's.
    """

    code = "unauthenticated"
    http_status = 401
    challenge = 'Bearer realm="runner"'
    """What the answer's WWW-Authenticate says (RFC 6750, 3)."""

    def __init__(self, message: str, *, presented: bool = False) -> None:
        """`presented`: there was a credential, and it is not taken."""
        super().__init__(message)
        if presented:
            self.challenge = f'{self.challenge}, error="invalid_token"'


class ForbiddenError(BadInputError):
    """Who calls is known, and may not do this."""

    code = "forbidden"
    http_status = 403


class NotFoundError(BadInputError):
    """There is no such thing, or it is no business of who asks: nobody can tell which."""

    code = "not_found"
    http_status = 404


class ConflictError(BadInputError):
    """It contradicts an earlier request: the same idempotency key was used for another one."""

    code = "conflict"
    http_status = 409


class OtherServerError(BadInputError):
    """A request was meant for another server than the one that got it, and was not carried out.

    One with other settings, or another process than the one that an earlier request went to.
    """

    code = "other_server"
    http_status = 412


class TooLargeError(BadInputError):
    """The request is larger than the server takes."""

    code = "too_large"
    http_status = 413


class ProfileError(BadInputError):
    """A profile is wrong: unknown key, bad value, circular `extends`, not found."""

    code = "bad_profile"


class PolicyError(BadInputError):
    """A rule set or a policy layer is wrong."""

    code = "bad_policy"


class SettingsError(BadInputError):
    """A setting (flag, environment variable or configuration file) is wrong."""

    code = "bad_settings"


class IssuerUnavailableError(RunnerError):
    """A token can't be verified now: its issuer's keys could not be fetched."""

    code = "issuer_unavailable"


class StateError(RunnerError):
    """The state folder can't be used: owner, mode, version, or it can't be written."""

    code = "state_unusable"


class RecordError(RunnerError):
    """A record could not be made durable, so the run was not started or was stopped."""

    code = "record_failed"


class BusyError(RunnerError):
    """A server has as many runs at once, and waiting, as it takes; try again later."""

    code = "busy"
    http_status = 429


class UnreachableError(RunnerError):
    """A server does not answer, or stopped in the middle of an answer."""

    code = "unreachable"
    sent = False
    """Whether the request was on its way, so that nobody knows what became of it."""


class AnswerError(RunnerError):
    """A server answered what this version does not understand."""

    code = "bad_answer"


class StoppingError(RunnerError):
    """A server is about to end and begins no run any more."""

    code = "stopping"


class BackendError(RunnerError):
    """The sandbox could not be built or was lost."""

    code = "backend_failed"


class BackendUnavailableError(BackendError):
    """The backend can't work on this machine: no engine, no image, not installed."""

    code = "backend_unavailable"


class ProtectionMissingError(BackendError):
    """A protection that the profile requires is withheld here; nothing was run."""

    code = "protection_missing"

    def __init__(self, protection: str, why: str) -> None:
        """`protection` is a `model.protection.Protection` value; `why` one clause for people."""
        super().__init__(
            f"required protection '{protection}' is not available: {why} "
            "(run `runner doctor` to see what is in force and how to get the rest)"
        )
        self.protection = protection


def error_of(code: str, message: str) -> RunnerError:
    """The error that has this code, of a failure that another process told of.

    The other way round than `code`. A code that this version does not know is told in the message.
    """
    kind = _by_code().get(code)
    if kind is None:
        return RunnerError(f"{message} ({code})")
    if kind is ProtectionMissingError:
        error = kind.__new__(kind, message)
        _, _, rest = message.partition("required protection '")
        error.protection = rest.partition("'")[0]
        return error
    return kind(message)


def _by_code() -> dict[str, type[RunnerError]]:
    """Of classes that share a code the most special one is what the library raises."""
    found: dict[str, type[RunnerError]] = {}
    kinds: list[type[RunnerError]] = [RunnerError]
    while kinds:
        kind = kinds.pop(0)
        if "code" in vars(kind) or kind is RequestError:
            found[kind.code] = kind
        kinds += kind.__subclasses__()
    return found
