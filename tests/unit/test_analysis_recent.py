"""What is kept of what was read: the ones used last, up to a bound, by any thread."""

from __future__ import annotations

import threading

from runner.analysis import read
from runner.analysis.recent import Recent
from runner.model.request import Argv, Script, ShellText


def test_what_is_used_stays_and_the_rest_goes() -> None:
    kept: Recent[int, str] = Recent(limit=100)
    for number in range(1000):
        kept.put(number, str(number), 10)
        assert kept.get(0) == "0"
        assert kept.get(number) == str(number)
    known = [number for number in range(1000) if kept.get(number) is not None]
    assert 0 in known
    assert len(known) <= 20  # two generations


def test_what_weighs_too_much_is_not_kept() -> None:
    kept: Recent[str, str] = Recent(limit=100)
    kept.put("small", "a", 10)
    kept.put("large", "b", 11)
    assert kept.get("small") == "a"
    assert kept.get("large") is None


def test_threads_get_what_was_put_under_their_key() -> None:
    kept: Recent[int, int] = Recent(limit=640)
    wrong = []

    def use(first: int) -> None:
        for number in range(first, first + 5000):
            key = number % 97
            found = kept.get(key)
            if found is None:
                kept.put(key, key * 2, 10)
            elif found != key * 2:
                wrong.append((key, found))

    threads = [threading.Thread(target=use, args=(first,)) for first in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_the_same_program_is_read_into_the_same_object() -> None:
    for program, again in (
        (ShellText("echo kept"), ShellText("echo kept")),
        (Argv(("echo", "kept")), Argv(("echo", "kept"))),
        (Script(b"1", "python", ("python3",), "x"), Script(b"1", "python", ("python3",), "x")),
    ):
        assert read(program) is read(again)


def test_programs_that_differ_in_anything_are_read_apart() -> None:
    script = (b"echo a", "sh", ("sh",), "x")
    programs = [
        ShellText("argv"), ShellText("argv", "sh"), Argv(("argv",)), Argv(("argv", "argv")),
        Script(*script), Script(*script[:3], "y"), Script(*script[:2], ("dash",), "x"),
        Script(b"echo a", "bash", ("sh",), "x"), Script(b"echo b", "sh", ("sh",), "x"),
        ShellText("echo a", "sh"), ShellText("echo a"), Argv(("echo", "a")), Argv(("echo a",)),
    ]  # fmt: skip
    read_once = [read(program) for program in programs]
    assert len({id(intent) for intent in read_once}) == len(programs)
    assert [read(program) for program in programs] == read_once


def test_a_text_that_can_t_be_read_is_not_kept() -> None:
    program = ShellText("if (")
    assert read(program).unreadable is not None
    assert read(program) is not read(program)
