"""Paths whose content is executed by somebody who did not ask for it.

A program that can't leave its sandbox writes there what a shell, an editor, git or a pipeline runs
the next time that its owner works in the folder. So they are applied only where a profile says so.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable

from runner.policy.globs import Glob, glob

_GIT_DATA = (
    "**/.git/objects/**", "**/.git/refs/**", "**/.git/logs/**", "**/.git/lfs/objects/**",
    "**/.git/index", "**/.git/HEAD", "**/.git/ORIG_HEAD", "**/.git/FETCH_HEAD",
    "**/.git/MERGE_HEAD", "**/.git/MERGE_MSG", "**/.git/COMMIT_EDITMSG", "**/.git/packed-refs",
    "**/.git/description", "**/.git/info/exclude", "**/.git/shallow",
)  # fmt: skip
"""What commits, branches and fetches write; all else in a repository can make git run something."""

PROTECTED: tuple[tuple[str, tuple[str, ...]], ...] = (
    (
        "git runs what hooks, settings and a rebase's steps name (githooks(5), git-config(1))",
        (
            "**/.git/**", "**/*.git/hooks/**", "**/*.git/config", "**/.gitconfig",
            "**/.gitmodules",
            "**/.config/git/**", "**/hooks/applypatch-msg", "**/hooks/commit-msg",
            "**/hooks/fsmonitor-watchman", "**/hooks/post-*", "**/hooks/pre-*",
            "**/hooks/prepare-commit-msg", "**/hooks/push-to-checkout", "**/hooks/sendemail-*",
            "**/hooks/update", "**/.githooks/**",
        ),
    ),
    (
        "another version control system runs its hooks and settings",
        ("**/.hg/hgrc", "**/.hgrc", "**/.svn/**", "**/.jj/**", "**/.bzr/**", "**/_darcs/prefs/**"),
    ),
    (
        "a manager of hooks runs it at the next commit",
        (
            "**/.husky/**", "**/.huskyrc*", "**/.pre-commit-config.y*ml", "**/lefthook.*",
            "**/.lefthook*", "**/.lefthook/**", "**/.overcommit.yml", "**/.lintstagedrc*",
            "**/lint-staged.config.*",
        ),
    ),
    (
        "a shell or a session reads it when it starts",
        (
            "**/.bashrc", "**/.bash_profile", "**/.bash_login", "**/.bash_logout",
            "**/.bash_aliases", "**/.profile", "**/.zshrc", "**/.zshenv", "**/.zprofile",
            "**/.zlogin", "**/.zlogout", "**/.kshrc", "**/.mkshrc", "**/.cshrc", "**/.tcshrc",
            "**/.login", "**/.logout", "**/.xprofile", "**/.xsession*", "**/.xinitrc",
            "**/.inputrc", "**/.pam_environment", "**/.config/fish/**", "**/.config/autostart/**",
            "**/.config/systemd/**", "**/.config/environment.d/**", "**/.local/bin/**",
            "**/.tmux.conf", "**/.screenrc", "**/.lessfilter", "**/.lesskey", "**/.ssh/**",
            "**/.gnupg/**", "**/.aws/**", "**/.kube/**", "**/.docker/**", "**/.netrc",
            "**/.curlrc", "**/.wgetrc", "**/.ripgreprc",
        ),
    ),
    (
        "it is run on entering the folder",
        ("**/.envrc", "**/.autoenv*", "**/.mise.toml", "**/mise.toml", "**/.mise/**",
         "**/.config/mise/**", "**/.rtx.toml"),
    ),
    (
        "an editor runs its tasks and settings on opening the folder",
        (
            "**/.vscode/**", "**/*.code-workspace", "**/.idea/**", "**/.fleet/**", "**/.zed/**",
            "**/.vs/**", "**/.devcontainer/**", "**/.devcontainer.json", "**/.vimrc",
            "**/.gvimrc", "**/.vim/**", "**/.exrc", "**/.nvimrc", "**/.nvim.lua",
            "**/.config/nvim/**", "**/.lvimrc", "**/.dir-locals*.el", "**/.emacs",
            "**/.emacs.d/**", "**/*.sublime-project", "**/.gdbinit", "**/.lldbinit",
        ),
    ),
    (
        "an agent's tool reads commands, hooks and servers from it",
        (
            "**/.claude/**", "**/.mcp.json", "**/.cursor/**", "**/.codex/**", "**/.gemini/**",
            "**/.windsurf/**", "**/.continue/**", "**/.kiro/**", "**/.roo/**", "**/.opencode/**",
            "**/opencode.json*", "**/.aider.conf.y*ml", "**/.qwen/**", "**/.amazonq/**",
        ),
    ),
    (
        "a pipeline runs it, with its own secrets, once it is pushed",
        (
            "**/.github/workflows/**", "**/.github/actions/**", "**/.gitlab-ci.y*ml",
            "**/.gitlab/**", "**/.circleci/**", "**/.travis.yml", "**/azure-pipelines*.y*ml",
            "**/.azure-pipelines/**", "**/bitbucket-pipelines.yml", "**/jenkinsfile*",
            "**/.buildkite/**", "**/.drone.y*ml", "**/.woodpecker/**", "**/.woodpecker.y*ml",
            "**/.gitea/workflows/**", "**/.forgejo/workflows/**", "**/appveyor.yml",
            "**/.appveyor.yml", "**/.semaphore/**", "**/.teamcity/**", "**/.cirrus.yml",
        ),
    ),
    (
        "a package manager or a build tool takes programs, plugins or sources from it",
        (
            "**/.npmrc", "**/.yarnrc*", "**/.yarn/releases/**", "**/.yarn/plugins/**",
            "**/.pnpmfile.*", "**/bunfig.toml", "**/.cargo/config*", "**/.bazelrc", "**/.mvn/**",
            "**/.pypirc", "**/pip.conf", "**/.config/pip/**", "**/.gemrc", "**/.bundle/config",
        ),
    ),
    (
        "an interpreter runs it when it starts",
        (
            "**/sitecustomize.py", "**/usercustomize.py", "**/site-packages/*.pth",
            "**/dist-packages/*.pth", "**/.rprofile", "**/.irbrc", "**/.pryrc", "**/.pdbrc*",
            "**/.perldb", "**/.psqlrc", "**/.sqliterc", "**/.iex.exs", "**/.ghci",
            "**/.ocamlinit", "**/.ipython/**", "**/.jupyter/**", "**/.julia/config/**",
        ),
    ),
)  # fmt: skip
"""Why, and globs over the path from the workspace, which are matched whatever the case.

`package.json`, Makefiles and test configurations are not among them: they are run when somebody
asks for it, and are what an honest change is about.
"""


def protected(path: str) -> str | None:
    """Why a path (relative to the workspace) is protected, in a clause; None: it is not."""
    below = f"/{path}".partition("/.git/")[2]
    # git itself gives nothing in there a name with a dot in front (git-check-ref-format(1)).
    if names(path, _GIT_DATA, fold=False) and "/." not in f"/{below}":
        return None
    for reason, patterns in PROTECTED:
        if names(path, patterns):
            return reason
    return None


def names(path: str, patterns: Iterable[str], *, fold: bool = True) -> bool:
    """Whether one of the globs matches the path; `fold`: whatever the case of either.

    A pattern starts at the workspace, or anywhere where it begins with `**/`.
    """
    text = f"/{_folded(path) if fold else path}"
    return any(_compiled(each.casefold() if fold else each).matches(text) for each in patterns)


def _folded(path: str) -> str:
    """As a folder that is case-insensitive sees it (ext4(5), `casefold`): `.GIT` is `.git`, and so
    is one with a zero-width character in it."""
    folded = unicodedata.normalize("NFD", path).casefold()
    return "".join(char for char in folded if unicodedata.category(char) != "Cf")


def _compiled(pattern: str) -> Glob:
    rooted = pattern if pattern.startswith(("**/", "/")) else f"/{pattern}"
    return glob(rooted, path=True)
