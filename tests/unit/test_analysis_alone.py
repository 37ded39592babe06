"""A plain command that surely runs no other is read at once, and the same as step by step."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runner.analysis import read
from runner.analysis.wrappers import table, unwrap
from runner.model.intent import Word
from runner.model.request import Argv, ShellText

_ROWS = table.load()
_GIT = _ROWS.exact["git"]
_NAMES = [*sorted(_ROWS.exact), *sorted(_ROWS.subscripts), "ls", "python3.11", "ld.so.1", "a/git",
          "./x.sh", "/bin/sh"]  # fmt: skip
_SUBCOMMANDS = [*sorted({*_GIT.texts, *_GIT.commands}), "config", "log", "-c", "-C", "--no-pager"]
_GIT_WORDS = ["run", "foreach", "alias.x", "alias.x=!a", "core.pager", "less", "-x", "--exec",
              "--exec=make", "--receive-pack=a", "-u", "-O", "origin", "a/b.py", "."]  # fmt: skip
_GIT_WORDS += ["ext::id x", "-qxid", "--exe=id", "--upload-pack", "--upl=id"]
_WORDS = ["-c", "-e", "-x", "--", "a", "a/b.py", "id", "5", "-n1", "A=1", "--exec=make", "-", "."]


def _alone(*words: str) -> bool:
    return unwrap.is_alone(tuple(Word(text) for text in words), _ROWS)


@given(
    st.one_of(
        st.tuples(
            st.sampled_from(["git", "/usr/bin/git", "git-rebase"]),
            st.builds(
                lambda first, rest: [first, *rest],
                st.sampled_from(_SUBCOMMANDS),
                st.lists(st.sampled_from(_GIT_WORDS), max_size=4),
            ),
        ),
        st.tuples(st.sampled_from(_NAMES), st.lists(st.sampled_from(_WORDS), max_size=4)),
    )
)
@settings(max_examples=250, deadline=None)
def test_reading_at_once_agrees_with_reading_step_by_step(case: tuple[str, list[str]]) -> None:
    words = (case[0], *case[1])
    if not _alone(*words):
        return
    # Behind another command the text goes through the grammar, and each command through all steps.
    behind = read(ShellText(" ".join((":;", *words))))
    argv = read(Argv(words))
    assert argv == replace(behind, language="argv", commands=behind.commands[1:])


@pytest.mark.parametrize(
    "text",
    ["git log --oneline -n 20 src", "git push --force origin main", "git rebase main", "ls -la",
     "./x.sh a", "/usr/bin/git status", "git grep -n exec"],
)  # fmt: skip
def test_common_commands_are_read_at_once(text: str) -> None:
    assert _alone(*text.split())
    assert len(read(ShellText(text)).commands) == 1


@pytest.mark.parametrize(
    "text",
    ["git", "git -c alias.x=a x", "git -C a log", "git --exec-path=a log", "git config alias.x a",
     "git push --receive-pack=a", "git push --exec a", "git rebase --exec a", "git rebase -x a",
     "git grep -Oa", "git bisect run a", "git submodule foreach a", "git difftool --extcmd=a",
     "sudo a", "env a", "xargs a", "find a", "sh a", "python3.11 a", "a/sudo b", "test -v a",
     "printf -v a", "time a", "eval a"],
)  # fmt: skip
def test_what_may_run_another_is_not(text: str) -> None:
    assert not _alone(*text.split())
