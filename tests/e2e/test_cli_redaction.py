"""`runner audit redact-test` and the setting, as people use them."""

from __future__ import annotations

import os
import subprocess

import pytest

from tests.conftest import RUNNER_COMMAND

TOKEN = "ghp_" + "aB3dE6gH9jK2mN5pQ8sT1vW4yZ7cF0hJ3lO6"


@pytest.fixture
def tried(tmp_path):
    def run(*args, stdin="", **env):
        return subprocess.run(
            [*RUNNER_COMMAND, *args],
            input=stdin,
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, "RUNNER_HOME": str(tmp_path / "home"), **env},
        )

    return run


def test_a_text_and_a_command(tried):
    done = tried("audit", "redact-test", stdin=f"one\ngit push https://x:{TOKEN}@h/\n")
    assert done.returncode == 0
    assert TOKEN not in done.stdout
    assert done.stdout.startswith("one\ngit push https://x:[redacted:github:")
    assert done.stderr == "line 2: github\n"
    words = tried("audit", "redact-test", "--", "deploy", "--token", "abc", "it")
    assert words.stdout.startswith("deploy --token '[redacted:option:")
    assert words.stdout.endswith("]' it\n")
    again = tried("audit", "redact-test", stdin=f"one\ngit push https://x:{TOKEN}@h/\n")
    assert again.stdout == done.stdout


def test_patterns_are_a_setting(tried):
    pattern = "acme_[a-z0-9]{16}"
    done = tried("audit", "redact-test", stdin="acme_" + "a" * 16, RUNNER_REDACT_PATTERNS=pattern)
    assert done.stdout.startswith("[redacted:pattern:")
    assert pattern in tried("config", "show", RUNNER_REDACT_PATTERNS=pattern).stdout
    wrong = tried("config", "show", RUNNER_REDACT_PATTERNS="(a+)+$")
    assert wrong.returncode == 2
    assert "RUNNER_REDACT_PATTERNS" in wrong.stderr
    assert "(a+)+$" in wrong.stderr
