"""Honest work does not notice the sandbox: a fast part; scripts/honest-work runs all of it."""

import json
import os

import pytest

FOLDERS = """
import json, os, sys
seen = {}
for folder, _, _ in os.walk("."):
    for entry in os.scandir(folder):
        found = os.lstat(entry.path)
        seen[entry.path] = [entry.inode() == found.st_ino, found.st_dev == os.stat(".").st_dev]
print(json.dumps(seen))
"""


@pytest.mark.usefixtures("native", "workspace")
def test_numbers_of_files_agree(runner_home):
    """What fts(3), `find -xdev` and `rm --one-file-system` go by: readdir(3) against stat(2)."""
    from runner import Runner

    os.makedirs("old/deep")
    with open("old/deep/file", "w") as file:
        file.write("x")
    text = "import os; os.makedirs('new/deep'); open('old/new', 'w').close()\n" + FOLDERS
    with Runner(backend="native") as runner:
        outcome = runner.run(code=text, language="python")
    assert outcome.ok, outcome.stderr.data
    seen = json.loads(outcome.stdout.data)
    assert {"./old/deep/file", "./old/new", "./new/deep"} <= set(seen)
    assert all(same == [True, True] for same in seen.values()), seen
