"""The same for async callers: each call in a thread, cancelled with the scope around it."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, BinaryIO, TypeVar

from runner.errors import RunnerError
from runner.streams import Cancellation

if TYPE_CHECKING:
    from runner.app import Runner
    from runner.changes.diff import FileDiff
    from runner.changes.results import Applied, RunChanges
    from runner.client import RemoteRunner
    from runner.client.following import RemoteFollowing
    from runner.client.sessions import RemoteSession, RemoteSessions
    from runner.following import Following
    from runner.model.decision import Decision
    from runner.model.following import RunEvent
    from runner.model.outcome import Outcome
    from runner.model.session import FileDone, FileTask, SessionProcess, SessionState
    from runner.sessions.client import Session
    from runner.sessions.starting import Sessions

T = TypeVar("T")


class AsyncRunner:
    """`Runner`, or what `connect` gives, for async callers (asyncio or trio, by anyio).

    Each call waits in a thread of its own, so that the loop goes on. When the scope around a `run`
    or `stream` is cancelled, the run is ended and recorded first, and then the cancellation goes
    on. The other calls are short, and are let end.
    """

    def __init__(self, runner: Runner | RemoteRunner | None = None, **options: Any) -> None:
        """`runner`: the one to use, closed with this; else `options`: those of `Runner`."""
        if runner is None:
            from runner.app import Runner  # noqa: PLC0415  (heavy, and not for who calls a server)

            runner = Runner(**options)
        self.blocking: Runner | RemoteRunner = runner
        """The same, for calls that are not here: `await r.call(r.blocking.approvals.waiting)`."""
        self.sessions = AsyncSessions(runner.sessions)
        """Sandboxes whose files and processes live on between commands."""

    @classmethod
    async def connect(
        cls, where: str, *, key: str | None = None, ca: str | os.PathLike[str] | None = None
    ) -> AsyncRunner:
        """To a server; see `runner.connect`."""
        from anyio import to_thread  # noqa: PLC0415  (only async callers need it)

        from runner.client import connect  # noqa: PLC0415

        return cls(await to_thread.run_sync(partial(connect, where, key=key, ca=ca)))

    async def run(self, argv: Sequence[str] | None = None, **options: Any) -> Outcome:
        """`Runner.run`; when the surrounding scope is cancelled, the run is ended first."""
        return await _run(self.blocking.run, argv, **options)

    async def stream(
        self, argv: Sequence[str] | None = None, **options: Any
    ) -> AsyncIterator[RunEvent]:
        """`Runner.stream`; who takes no more events, or is cancelled, ends the run."""
        import anyio  # noqa: PLC0415
        from anyio import to_thread  # noqa: PLC0415

        begin: Callable[[], Following | RemoteFollowing] = partial(
            self.blocking.stream, argv, **options
        )
        events = await self.call(begin)
        try:
            while (event := await _next(events)) is not None:
                yield event
        finally:
            with anyio.CancelScope(shield=True):
                await to_thread.run_sync(events.close)

    async def check(self, argv: Sequence[str] | None = None, **options: Any) -> Decision:
        """`Runner.check`."""
        return await self.call(self.blocking.check, argv, **options)

    async def changes(self, run_id: str) -> RunChanges:
        """`Runner.changes`."""
        return await self.call(self.blocking.changes, run_id)

    async def diff(self, run_id: str, paths: Sequence[str] = ()) -> tuple[FileDiff, ...]:
        """`Runner.diff`."""
        return await self.call(self.blocking.diff, run_id, paths)

    async def apply(
        self, run_id: str, paths: Sequence[str] = (), *, dry_run: bool = False
    ) -> Applied:
        """`Runner.apply`."""
        return await self.call(self.blocking.apply, run_id, paths, dry_run=dry_run)

    async def discard(self, run_id: str) -> bool:
        """`Runner.discard`."""
        return await self.call(self.blocking.discard, run_id)

    async def call(self, function: Callable[..., T], *args: Any, **options: Any) -> T:
        """Any other call, in a thread."""
        return await _call(function, *args, **options)

    async def aclose(self) -> None:
        """End every sandbox, or the connection, and let go of the log."""
        await self.call(self.blocking.close)

    async def __aenter__(self) -> AsyncRunner:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()


class AsyncSessions:
    """`Sessions`, or those of a server."""

    def __init__(self, sessions: Sessions | RemoteSessions) -> None:
        """`sessions`: the blocking ones."""
        self.blocking = sessions

    async def start(self, **options: Any) -> AsyncSession:
        """`Sessions.start`, or `RemoteSessions.start`."""
        return AsyncSession(await _call(self.blocking.start, **options))

    async def get(self, session_id: str) -> AsyncSession:
        """One that goes on."""
        return AsyncSession(await _call(self.blocking.get, session_id))

    async def all(self) -> tuple[AsyncSession, ...]:
        """Those that go on, the oldest first."""
        found: Sequence[Session | RemoteSession] = await _call(self.blocking.all)
        return tuple(AsyncSession(each) for each in found)


class AsyncSession:
    """`Session`, or one of a server: each call in a thread. Its end as a context stops it."""

    def __init__(self, session: Session | RemoteSession) -> None:
        """`session`: the blocking one."""
        self.blocking = session
        self.id = session.id

    async def run(self, argv: Sequence[str] | None = None, **options: Any) -> Outcome:
        """`Session.run`; when the surrounding scope is cancelled, the command is ended first."""
        return await _run(self.blocking.run, argv, **options)

    async def do(
        self, task: FileTask, source: BinaryIO | None = None, target: BinaryIO | None = None
    ) -> FileDone | Mapping[str, Any]:
        """`Session.do`, or `RemoteSession.do`."""
        return await _call(self.blocking.do, task, source, target)

    async def read(self, path: str, *, offset: int = 0, length: int | None = None) -> bytes:
        """`Session.read`."""
        return await _call(self.blocking.read, path, offset=offset, length=length)

    async def write(self, path: str, content: bytes | str, *, executable: bool = False) -> None:
        """`Session.write`."""
        await _call(self.blocking.write, path, content, executable=executable)

    async def processes(self) -> tuple[SessionProcess, ...]:
        """`Session.processes`."""
        return await _call(self.blocking.processes)

    async def end_process(self, number: int, signal: int = 15) -> bool:
        """`Session.end_process`."""
        return await _call(self.blocking.end_process, number, signal)

    async def state(self) -> SessionState:
        """`Session.state`."""
        return await _call(self.blocking.state)

    async def stop(self) -> Outcome:
        """`Session.stop`."""
        return await _call(self.blocking.stop)

    async def __aenter__(self) -> AsyncSession:
        return self

    async def __aexit__(self, *told: object) -> None:
        import anyio  # noqa: PLC0415

        with anyio.CancelScope(shield=True):
            await _call(self.blocking.__exit__, *told)


async def _call(function: Callable[..., T], *args: Any, **options: Any) -> T:
    from anyio import to_thread  # noqa: PLC0415

    return await to_thread.run_sync(partial(function, *args, **options))


async def _run(
    run: Callable[..., Outcome], argv: Sequence[str] | None = None, **options: Any
) -> Outcome:
    """A `run` in a thread; when the surrounding scope is cancelled, it is ended first."""
    import anyio  # noqa: PLC0415
    from anyio import to_thread  # noqa: PLC0415

    with Cancellation() as cancel:

        async def end_with_scope() -> None:
            try:
                await anyio.sleep_forever()
            finally:
                cancel.set()

        outcome: Outcome | None = None
        failure: Exception | None = None

        async def carried() -> None:
            # In a task of its own: what cancels the caller's (asyncio, by `wait_for` and the like)
            # would let go of the thread.
            nonlocal outcome, failure
            with anyio.CancelScope(shield=True):
                try:
                    outcome = await to_thread.run_sync(partial(run, argv, cancel=cancel, **options))
                except Exception as error:  # the group would wrap it
                    failure = error
            group.cancel_scope.cancel()

        async with anyio.create_task_group() as group:
            group.start_soon(end_with_scope)
            group.start_soon(carried)
    # What was cancelled does not go on with an outcome in its hands.
    await anyio.lowlevel.checkpoint_if_cancelled()
    if failure is not None:
        raise failure
    if outcome is None:
        raise RunnerError("the run was cancelled before it began")
    return outcome


async def _next(events: Following | RemoteFollowing) -> RunEvent | None:
    """The next one, None: there is none; a cancelled scope ends the run first."""
    import anyio  # noqa: PLC0415
    from anyio import to_thread  # noqa: PLC0415

    is_there = False

    async def end_with_scope() -> None:
        try:
            await anyio.sleep_forever()
        finally:
            if not is_there:
                events.cancel()

    event: RunEvent | None = None
    failure: Exception | None = None

    async def carried() -> None:
        nonlocal event, failure, is_there
        with anyio.CancelScope(shield=True):
            try:
                event = await to_thread.run_sync(next, events, None)
            except Exception as error:  # the group would wrap it
                failure = error
        is_there = True
        group.cancel_scope.cancel()

    async with anyio.create_task_group() as group:
        group.start_soon(end_with_scope)
        group.start_soon(carried)
    await anyio.lowlevel.checkpoint_if_cancelled()
    if failure is not None:
        raise failure
    return event
