"""Sinks, the output gate and the cancel token."""

from __future__ import annotations

import hashlib
import io
import os
import select
import threading

from runner.model.limits import UNLIMITED
from runner.streams import CallbackSink, Cancellation, FdSink, FileSink, Gate, NullSink


def test_the_gate_passes_no_more_than_both_streams_may_have_together():
    gate = Gate(10, 100)
    assert gate.admit("stdout", b"123456") == b"123456"
    assert gate.admit("stderr", b"1234") == b"1234"
    assert not gate.exceeded  # all of it, and not one more
    assert gate.admit("stdout", b"") == b""
    assert not gate.exceeded
    assert gate.admit("stderr", b"x") == b""
    assert gate.exceeded
    assert gate.output("stdout").bytes_total == 6
    assert gate.output("stderr").bytes_total == 4


def test_what_crosses_the_limit_passes_in_part():
    gate = Gate(4, 100)
    assert gate.admit("stdout", b"123456") == b"1234"
    assert gate.exceeded
    output = gate.output("stdout")
    assert (output.data, output.bytes_total, output.truncated) == (b"1234", 4, True)
    assert output.sha256 == hashlib.sha256(b"1234").hexdigest()
    assert gate.admit("stdout", b"7") == b""


def test_without_limit_everything_passes_and_is_hashed_but_only_the_first_is_kept():
    kept: list[tuple[str, bytes]] = []
    gate = Gate(UNLIMITED, 5, lambda stream, data: kept.append((stream, data)))
    for piece in (b"abc", b"defg", b"hij"):
        assert gate.admit("stdout", piece) == piece
    assert gate.admit("stderr", b"e") == b"e"
    output = gate.output("stdout")
    assert (output.data, output.bytes_total, output.truncated) == (b"abcde", 10, True)
    assert output.sha256 == hashlib.sha256(b"abcdefghij").hexdigest()
    assert kept == [("stdout", b"abc"), ("stdout", b"de"), ("stderr", b"e")]
    assert not gate.output("stderr").truncated
    assert not gate.exceeded


def test_keeping_nothing():
    gate = Gate(UNLIMITED, 0, lambda stream, data: 1 / 0)
    assert gate.admit("stdout", b"abc") == b"abc"
    assert gate.output("stdout").data == b""
    assert gate.output("stdout").truncated


def test_a_descriptor_takes_what_fits_without_waiting():
    read_fd, write_fd = os.pipe()
    with os.fdopen(read_fd, "rb", 0) as reader, os.fdopen(write_fd, "wb", 0):
        sink = FdSink(write_fd)
        assert sink.fileno() == write_fd
        assert sink.write(bytes(100_000)) == select.PIPE_BUF
        assert len(reader.read(100_000)) == select.PIPE_BUF


def test_sinks_that_never_block():
    heard: list[bytes] = []
    file = io.BytesIO()
    for sink in (CallbackSink(heard.append), FileSink(file), NullSink()):
        assert sink.fileno() is None
        assert sink.write(b"abc") == 3
    assert heard == [b"abc"]
    assert file.getvalue() == b"abc"


def test_cancelling_is_seen_by_whoever_waits_and_stays():
    with Cancellation() as cancel:
        assert not cancel.is_set
        assert select.select([cancel], [], [], 0)[0] == []
        thread = threading.Thread(target=cancel.set)
        thread.start()
        assert select.select([cancel], [], [], 60)[0] == [cancel]
        thread.join()
        cancel.set()
        assert cancel.is_set
        assert select.select([cancel], [], [], 0)[0] == [cancel]


def test_cancelling_what_is_over_touches_nobody_elses_descriptor():
    cancel = Cancellation()
    number = cancel.fileno()
    cancel.close()
    cancel.close()
    with open(os.devnull, "rb") as other:
        if other.fileno() != number:
            os.dup2(other.fileno(), number)
        cancel.set()
        assert cancel.is_set
        assert cancel.fileno() == -1
        if other.fileno() != number:
            os.close(number)
