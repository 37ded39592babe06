"""Pid 1 of a container: lays the workspace down, runs the program, watches it, tells what came.

It is root in the container with the few capabilities that this needs; the program is another
user without any, so it can neither signal nor trace nor read init. When init ends, the kernel
kills every process of the pid namespace (pid_namespaces(7)); and it ends when its stdin does,
which the engine closes when the supervisor is gone. Nothing here blocks but poll(2).
"""

# Paths are bytes here, of names that nobody promises to be text.
# ruff: noqa: PTH103, PTH120

from __future__ import annotations

import base64
import contextlib
import os
import select
import signal
import time
from collections.abc import Iterator
from typing import Any

from runner.backends.docker.inside import child, tree, walls
from runner.backends.docker.inside.counters import Cgroup
from runner.backends.docker.inside.watch import Watch
from runner.backends.docker.inside.wire import (
    STDIN_CREDIT_BYTES,
    Decoder,
    Kind,
    WireError,
    decode_json,
    encode,
    encode_json,
)

READ_BYTES = 65536
HELD_BYTES = 4 * READ_BYTES
"""Output held here before the program has to wait for its reader."""
USED_HELD_BYTES = 2 * HELD_BYTES
"""With so much to be heard yet, nothing is told of what was used."""
TICK_S = 0.05
USED_LOOKS = 4
"""What was used is told at every so many looks."""
CHANGES_A_FRAME = 500
CHANGES_FRAME_BYTES = 64 * 1024
"""A frame ends behind the path that crosses this; in JSON a byte takes six at the most."""


class SupervisorGoneError(Exception):
    """Stdin ended: nobody is there to run for."""


class Init:
    """One run, from configuration to the list of changes."""

    def __init__(self) -> None:
        """Takes over descriptors 0 and 1."""
        self._decoder = Decoder()
        self._inbox: list[tuple[Kind, bytes]] = []
        self._outbox = bytearray()
        self._config: dict[str, Any] = {}
        self._root: bytes | None = None
        self._mounted: frozenset[bytes] = frozenset()
        self._known: dict[bytes, tree.Known] = {}
        self._child: child.Child | None = None
        self._open: dict[int, Kind] = {}
        self._stdin: int | None = None
        self._stdin_pending = bytearray()
        self._stdin_ends = False
        self._taken_bytes = 0
        self._killed_for: str | None = None
        self._metered = False
        self._looks = 0
        self._user_namespace = False
        self._landlock_abi = 0
        os.set_blocking(0, False)
        os.set_blocking(1, False)

    def main(self) -> None:
        """Everything, in order."""
        self._wake, wakes = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(wakes, warn_on_full_buffer=False)
        self._prepare()
        self._send(encode_json(Kind.READY, self._findings()))
        self._run(decode_json(self._await(Kind.GO)))
        self._report_changes()
        self._await_end()

    # What comes before the program.

    def _prepare(self) -> None:
        self._config = decode_json(self._await(Kind.CONFIG))
        config = self._config
        self._cgroup = Cgroup(_file("/proc/self/mountinfo"))
        for file in config["files"]:
            _inject(file)
        for path, device, inode in config["identities"]:
            _check_identity(_bytes(path), (device, inode))
        folder = config["workspace"]
        if folder is not None:
            self._root = _bytes(folder)
            self._mounted = frozenset(_bytes(path) for path in config["mounted"])
        # Asked for only where the program gets a filter that keeps it from doing the same.
        self._user_namespace = bool(config["seccomp"]) and walls.can_have_user_namespace(
            config["uid"]
        )
        self._landlock_abi = walls.landlock_abi()
        self._known = self._unpack()

    def _unpack(self) -> dict[bytes, tree.Known]:
        unpacker = tree.Unpacker(
            self._root or b"/nonexistent", self._config["uid"], self._config["gid"], self._mounted
        )
        while True:
            kind, payload = self._next()
            if kind is Kind.ENTRY:
                unpacker.entry(decode_json(payload))
            elif kind is Kind.CONTENT:
                unpacker.content(payload)
            elif kind is Kind.START:
                return unpacker.finish()
            else:
                raise WireError(f"{kind.name} came while the workspace was laid down")

    def _findings(self) -> dict[str, Any]:
        status = dict(
            line.split(":\t", 1)
            for line in _file("/proc/self/status").splitlines()
            if ":\t" in line
        )
        return {
            "seccomp": status.get("Seccomp", "").strip() == "2",
            "no_new_privileges": status.get("NoNewPrivs", "").strip() == "1",
            "user_namespace": self._user_namespace,
            "landlock_abi": self._landlock_abi,
            "pid_one": os.getpid() == 1,
            "uid_map": _file("/proc/self/uid_map").split(),
            "root_read_only": bool(os.statvfs("/").f_flag & os.ST_RDONLY),
            "own_cgroup_root": all(
                line.endswith(":/") for line in _file("/proc/self/cgroup").splitlines()
            ),
            "counters": self._cgroup.complete,
            "interfaces": sorted(
                line.split(":")[0].strip() for line in _file("/proc/net/dev").splitlines()[2:]
            ),
        }

    # While the program runs.

    def _run(self, window: list[int] | None) -> None:
        config = self._config
        program = child.Program(
            argv=tuple(_bytes(word) for word in config["argv"]),
            environment={_bytes(name): _bytes(value) for name, value in config["environment"]},
            cwd=_bytes(config["cwd"]),
            uid=config["uid"],
            gid=config["gid"],
            open_files=config["limits"]["open_files"],
            user_namespace=self._user_namespace,
            writable=(
                tuple(_bytes(path) for path in config["writable"]) if self._landlock_abi else None
            ),
            seccomp=base64.b64decode(config["seccomp"]),
        )
        watch = Watch(self._cgroup, config["limits"], config["scratch"])
        started = child.start(program, terminal=config["terminal"], window=window)
        self._child = started
        self._stdin = started.stdin
        self._open = {started.stdout: Kind.STDOUT}
        if started.stderr is not None:
            self._open[started.stderr] = Kind.STDERR
        for fd in {started.stdin, *self._open}:
            os.set_blocking(fd, False)
        status = self._until_ended(watch)
        limit = watch.end(failed=status != 0, killed_for=self._killed_for)
        ended: dict[str, Any] = {
            "status": status,
            "limit": limit,
            "failed_at": started.failed_at,
            "errno": started.errno_code,
            "usage": watch.usage(),
        }
        self._drain()
        self._send(encode_json(Kind.ENDED, ended))

    def _until_ended(self, watch: Watch) -> int:
        """Serve until the program ends by itself or has to; then nothing is alive. Wait status."""
        status = None
        due_s = time.monotonic() + TICK_S
        while status is None:
            self._serve(max(0.0, min(due_s, watch.deadline_s) - time.monotonic()))
            for kind, payload in self._take_inbox():
                self._obey(kind, payload)
            status = self._reap()
            if status is None and time.monotonic() >= min(due_s, watch.deadline_s):
                due_s = time.monotonic() + TICK_S
                self._killed_for = self._killed_for or watch.tick()
                self._tell_used(watch)
            if status is None and self._killed_for is not None:
                status = self._kill_all()
        watch.stopped()
        self._kill_all()
        return status

    def _tell_used(self, watch: Watch) -> None:
        """Every few looks, if somebody meters; not while nobody hears what was told before."""
        self._looks += 1
        if self._metered and self._looks % USED_LOOKS == 0 and len(self._outbox) < USED_HELD_BYTES:
            self._outbox += encode_json(Kind.USED, watch.usage())

    def _obey(self, kind: Kind, payload: bytes) -> None:
        if kind is Kind.STDIN:
            if self._stdin is None:  # nobody reads it; the sender must not wait
                self._outbox += encode_json(Kind.STDIN_TAKEN, len(payload))
            else:
                self._stdin_pending += payload
        elif kind is Kind.STDIN_END:
            self._stdin_ends = True
        elif kind is Kind.WINDOW:
            rows, columns = decode_json(payload)
            if self._child is not None and self._child.stderr is None:
                child.resize(self._child.stdout, rows, columns)
        elif kind is Kind.METER:
            self._metered = True
        elif kind is Kind.KILL:
            self._killed_for = self._killed_for or "told"
        else:
            raise WireError(f"{kind.name} came while the program ran")
        self._settle_stdin()

    def _settle_stdin(self) -> None:
        if self._stdin is None or self._stdin_pending or not self._stdin_ends:
            return
        if self._child is not None and self._child.stderr is None:
            # A terminal has no half to close: its end-of-file character, once.
            self._stdin_pending += b"\x04"
            self._stdin_ends = False
            return
        os.close(self._stdin)
        self._stdin = None

    def _reap(self) -> int | None:
        """Wait for everything that is dead; the program's wait status when it is among them."""
        status = None
        while True:
            try:
                pid, one = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return status
            if pid == 0:
                return status
            if self._is_end_of_child(pid, one):
                status = one

    def _is_end_of_child(self, pid: int, status: int) -> bool:
        """Not a stop: that comes from a program that asked its parent to trace it (ptrace(2))."""
        return self._child is not None and pid == self._child.pid and not os.WIFSTOPPED(status)

    def _kill_all(self) -> int | None:
        """Kill and reap until no process but this one is left; the program's wait status."""
        status = None
        while True:
            with contextlib.suppress(ProcessLookupError):
                os.kill(-1, signal.SIGKILL)  # from pid 1: all others of the namespace, at once
            try:
                pid, one = os.waitpid(-1, 0)
            except ChildProcessError:
                return status
            if self._is_end_of_child(pid, one):
                status = one

    def _drain(self) -> None:
        """What the pipes still hold; all writers are dead, so it ends."""
        if self._stdin is not None and self._child is not None and self._child.stderr is not None:
            os.close(self._stdin)
            self._stdin = None
        while self._open:
            self._serve(None)
            self._take_inbox()
        self._flush()

    # What comes after it.

    def _report_changes(self) -> None:
        if self._root is None:
            self._send(encode_json(Kind.DONE, False))
            return
        room = os.statvfs(self._root)
        found, cut = tree.changes(
            self._root, self._known, self._mounted, room.f_blocks * room.f_frsize
        )
        part: list[dict[str, Any]] = []
        part_bytes = 0
        for change in found:
            part.append(change)
            part_bytes += len(change["path"]) + len(change.get("target") or "")
            if part_bytes >= CHANGES_FRAME_BYTES or len(part) >= CHANGES_A_FRAME:
                self._send(encode_json(Kind.CHANGES, part))
                part, part_bytes = [], 0
        self._send(encode_json(Kind.CHANGES, part))
        self._send(encode_json(Kind.DONE, cut))

    def _await_end(self) -> None:
        """Stay until the supervisor has taken everything and lets go."""
        self._flush()
        try:
            while True:
                kind, payload = self._next()
                if kind is Kind.FETCH:
                    self._fetch(_bytes(decode_json(payload)))
        except SupervisorGoneError:
            return

    def _fetch(self, name: bytes) -> None:
        """Send a file's content; nothing is alive that could change it."""
        fd = tree.opened(self._root, name) if self._root is not None else None
        if fd is not None:
            try:
                while data := os.read(fd, READ_BYTES):
                    self._send(encode(Kind.KEPT, data))
            finally:
                os.close(fd)
        self._send(encode_json(Kind.KEPT_END, fd is not None))

    # Descriptors.

    def _send(self, frame: bytes) -> None:
        """Queue a frame and wait until all that is queued has gone."""
        self._outbox += frame
        self._flush()

    def _flush(self) -> None:
        while self._outbox:
            self._serve(None, outputs=False)

    def _await(self, wanted: Kind) -> bytes:
        kind, payload = self._next()
        if kind is not wanted:
            raise WireError(f"{kind.name} came where {wanted.name} should")
        return payload

    def _next(self) -> tuple[Kind, bytes]:
        while not self._inbox:
            self._serve(None)
        return self._inbox.pop(0)

    def _take_inbox(self) -> Iterator[tuple[Kind, bytes]]:
        taken, self._inbox = self._inbox, []
        return iter(taken)

    def _serve(self, wait_s: float | None, *, outputs: bool = True) -> None:
        """One poll(2) over everything that there is to wait for, and what follows from it."""
        poll = select.poll()
        poll.register(0, select.POLLIN)
        poll.register(self._wake, select.POLLIN)
        if self._outbox:
            poll.register(1, select.POLLOUT)
        wanted: dict[int, int] = {}
        if outputs and len(self._outbox) < HELD_BYTES:
            wanted = dict.fromkeys(self._open, select.POLLIN)
        if self._stdin is not None and self._stdin_pending:
            wanted[self._stdin] = wanted.get(self._stdin, 0) | select.POLLOUT
        for fd, events in wanted.items():
            poll.register(fd, events)
        ready = poll.poll(None if wait_s is None else wait_s * 1000)
        for fd, events in ready:
            if fd == 0:
                self._read_supervisor()
            elif fd == 1:
                self._write_supervisor()
            elif fd == self._wake:
                _empty(fd)
            else:
                if fd in self._open and events & ~select.POLLOUT:
                    self._read_program(fd)
                if fd == self._stdin and events & (select.POLLOUT | select.POLLERR):
                    self._write_program()

    def _read_supervisor(self) -> None:
        try:
            data = os.read(0, READ_BYTES)
        except BlockingIOError:
            return
        if not data:
            raise SupervisorGoneError
        self._inbox.extend(self._decoder.feed(data))

    def _write_supervisor(self) -> None:
        try:
            written = os.write(1, memoryview(self._outbox)[:READ_BYTES])
        except BlockingIOError:
            return
        except BrokenPipeError:
            raise SupervisorGoneError from None
        del self._outbox[:written]

    def _read_program(self, fd: int) -> None:
        try:
            data = os.read(fd, READ_BYTES)
        except BlockingIOError:
            return
        except OSError:  # EIO: every holder of the terminal is gone
            data = b""
        if data:
            self._outbox += encode(self._open[fd], data)
            return
        del self._open[fd]
        if fd != self._stdin:
            os.close(fd)

    def _write_program(self) -> None:
        if self._stdin is None:
            return
        try:
            written = os.write(self._stdin, memoryview(self._stdin_pending)[:READ_BYTES])
        except BlockingIOError:
            return
        except OSError:  # EPIPE: the program closed its stdin; EIO: the terminal is gone
            written = len(self._stdin_pending)
            self._stdin_ends = True
        del self._stdin_pending[:written]
        self._taken_bytes += written
        if self._taken_bytes >= STDIN_CREDIT_BYTES // 4 or not self._stdin_pending:
            self._outbox += encode_json(Kind.STDIN_TAKEN, self._taken_bytes)
            self._taken_bytes = 0
        self._settle_stdin()


def _check_identity(path: bytes, identity: tuple[int, int]) -> None:
    """That the engine, which looks paths up for itself, mounted what the supervisor looked at."""
    found = os.lstat(path)
    if (found.st_dev, found.st_ino) != identity:
        where = path.decode("utf-8", "backslashreplace")
        raise WireError(f"{where} was replaced meanwhile, or the engine sees other files")


def _inject(file: dict[str, Any]) -> None:
    """A file in a folder that only root can write: the program can't change or replace it."""
    path = _bytes(file["path"])
    os.makedirs(os.path.dirname(path), mode=0o755, exist_ok=True)
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    try:
        view = memoryview(base64.b64decode(file["content"]))
        while view:
            view = view[os.write(fd, view) :]
        os.fchmod(fd, int(file["mode"]))
    finally:
        os.close(fd)


def _empty(fd: int) -> None:
    try:
        while os.read(fd, READ_BYTES):
            pass
    except BlockingIOError:
        return


def _file(path: str) -> str:
    with open(path, encoding="utf-8", errors="surrogateescape") as file:
        return file.read()


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def run() -> None:
    """Be pid 1; never raises, and what went wrong is said in a `FATAL` frame."""
    os.umask(0)
    init = Init()
    try:
        init.main()
    except SupervisorGoneError:
        return
    except Exception as error:  # the last word of a process that ends
        os.set_blocking(1, True)
        os.write(1, encode_json(Kind.FATAL, f"{type(error).__name__}: {error}"))
