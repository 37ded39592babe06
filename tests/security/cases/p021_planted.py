"""21: what somebody's tools run or obey later, planted: it stays in the layer, and is listed."""

import os

from probe import HOME, main, write

EXPECTED = {
    "attack": {
        "changes_truncated": False,
        "changes": {
            ".git/hooks/post-checkout": "file",
            ".git/config": "file",
            ".gitmodules": "file",
            ".envrc": "file",
            ".npmrc": "file",
            "conftest.py": "file",
            "sitecustomize.py": "file",
            ".vscode/tasks.json": "file",
            ".idea/workspace.xml": "file",
            ".claude/settings.json": "file",
            "deep/down/.git/hooks/pre-push": "file",
            ".GIT/hooks/pre-commit": "file",
            ".github/workflows/x.yml": "file",
            ".ssh/authorized_keys": "file",
            ".profile": "file",
            ".bashrc": "file",
            "repo/.git/hooks/pre-commit": "file",
            "repo/.git/hooks/post-merge": "file",
            "repo/.git/config": "file",
            "repo/.git/worktrees": "symlink",
            "tree/.git": "file",
            "by-link": "symlink",
        },
    },
    "twin": {"changes_truncated": False, "changes": {"src/main.py": "file", "old": "file"}},
}
# What can be read in the text is denied before launch: so here the names are made while it runs.
DOT = __file__[-3]  # of ".py"
GIT = f"{DOT}git"
OTHERS = (
    f"{GIT}/hooks/post-checkout", f"{GIT}/config", f"{GIT}modules", f"{DOT}envrc", f"{DOT}npmrc",
    f"conftest{DOT}py", f"sitecustomize{DOT}py", f"{DOT}vscode/tasks.json",
    f"{DOT}idea/workspace.xml",
    f"{DOT}claude/settings.json", f"deep/down/{GIT}/hooks/pre-push", f"{DOT}GIT/hooks/pre-commit",
    f"{GIT}hub/workflows/x.yml", f"{DOT}ssh/authorized_keys", f"{DOT}profile",
)  # fmt: skip
BEFORE = (f"repo/{GIT}/hooks/pre-commit", f"repo/{GIT}/config", f"tree/{GIT}", f"{DOT}bashrc")
GAPS = {
    "bind": {
        ".bashrc OSError(30": "what is guarded can't be written at all",
    },
}


def attack(probe):
    for path in OTHERS:
        os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
        probe.works(
            path, lambda path=path: write(path, b"#!/bin/sh\ntouch /tmp/run-by-you\n", mode=0o755)
        )
    for path in BEFORE:
        probe.works(path, lambda path=path: write(path, b"changed", os.O_APPEND))
    probe.works("a link to hooks", lambda: os.symlink(f"repo/{GIT}/hooks", "by-link"))
    probe.works("by the link", lambda: write("by-link/post-merge", b"x"))
    for name in (f"repo/{GIT}/worktrees/tree", f"repo/{GIT}/worktrees"):
        os.rmdir(name)
    probe.works("a link out", lambda: os.symlink(probe.facts["outside"], f"repo/{GIT}/worktrees"))
    # Of the agent's home nothing is the host's.
    for name in ("bashrc", "ssh/authorized_keys", "config/autostart/x.desktop"):
        path = f"{HOME}/{DOT}{name}"
        os.makedirs(os.path.dirname(path), exist_ok=True)
        probe.works(path, lambda path=path: write(path, b"x"))


def twin(probe):
    os.mkdir("src")
    probe.works("a program", lambda: write("src/main.py", b"print(1)\n"))
    probe.works("a change", lambda: write("old", b"new"))


main(attack, twin)
