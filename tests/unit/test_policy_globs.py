"""Globs: matching, and what only the ends of a text tell."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runner.policy.globs import glob, is_literal


@pytest.mark.parametrize(
    ("pattern", "text", "expected"),
    [
        ("rm", "rm", True),
        ("rm", "rmdir", False),
        ("*", "a/b\nc", True),
        ("-r*", "-rf", True),
        ("a?c", "abc", True),
        ("[ab]c", "bc", True),
        ("[!ab]c", "bc", False),
        ("[!ab]c", "xc", True),
        ("[a-c]", "b", True),
        ("[", "[", True),
        ("[]]", "]", True),
        ("[z-a]", "z", True),
        ("a\\*", "a*", True),
        ("a\\*", "ab", False),
        ("a.c", "abc", False),
        ("", "", True),
    ],
)
def test_matches(pattern: str, text: str, expected: bool) -> None:
    assert glob(pattern).matches(text) is expected


@pytest.mark.parametrize(
    ("pattern", "text", "expected"),
    [
        ("/etc/*", "/etc/passwd", True),
        ("/etc/*", "/etc/ssh/config", False),
        ("/etc/**", "/etc/ssh/config", True),
        ("/etc/**", "/etc", True),
        ("/etc/**", "/etcetera", False),
        ("**/.git/hooks/*", "/a/b/.git/hooks/x", True),
        ("/", "/", True),
        ("/**", "/", True),
        ("/a?b", "/a/b", False),
    ],
)
def test_paths(pattern: str, text: str, expected: bool) -> None:
    assert glob(pattern, path=True).matches(text) is expected


@pytest.mark.parametrize(
    ("pattern", "prefix", "suffix", "expected"),
    [
        ("/etc/**", "/srv/", "", False),
        ("/etc/**", "", ".o", True),
        ("/etc/passwd", "", ".o", False),
        ("/etc/passwd", "/e", "wd", True),
        ("-r*", "", "", True),
        ("-r*", "-", "x", True),
        ("-r", "", "x", False),
        ("*.py", "a", "", True),
        ("*.py", "", "c", False),
    ],
)
def test_could_match(pattern: str, prefix: str, suffix: str, expected: bool) -> None:
    assert glob(pattern, path="/" in pattern).could_match(prefix, suffix) is expected


PATTERNS = st.text("ab/*?[]!-\\", max_size=8)


@given(PATTERNS, st.text("ab/-]", max_size=8), st.integers(0, 8), st.integers(0, 8), st.booleans())
@settings(max_examples=300, deadline=None)
def test_what_matches_could_match_by_its_ends(
    pattern: str, text: str, head: int, tail: int, path: bool
) -> None:
    compiled = glob(pattern, path=path)
    if compiled.matches(text):
        assert compiled.could_match(text[:head], text[max(len(text) - tail, 0) :])
    if is_literal(pattern):
        assert compiled.matches(text) == (text == pattern)
