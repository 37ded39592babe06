"""Paths of a folder whose content other programs act on: what a run leaves there runs later.

Among them are what git, shells, editors and agents take commands from without being asked.
"""

from __future__ import annotations

GUARDED_PATHS = (
    # gitrepository-layout(5): hooks are run, the configuration names programs to run, and
    # `commondir`, or a `.git` that is a file, says where both are looked for.
    ".git/config", ".git/config.worktree", ".git/hooks", ".git/commondir",
    ".git/worktrees/*/config.worktree", ".git/worktrees/*/commondir", ".git/worktrees/*/gitdir",
    ".git/modules/*/config", ".git/modules/*/hooks", ".git/modules/*/commondir",
    ".git/modules/*/*/config", ".git/modules/*/*/hooks", ".git/modules/*/*/commondir",
    ".gitconfig", ".gitmodules",
    # bash(1), zsh(1), readline(3), direnv(1), ripgrep, npm: read at every start.
    ".bash_login", ".bash_logout", ".bash_profile", ".bashrc", ".profile",
    ".zlogin", ".zprofile", ".zshenv", ".zshrc", ".inputrc", ".envrc", ".ripgreprc", ".npmrc",
    ".ssh", ".tmux.conf",
    # Managers of hooks.
    ".githooks", ".husky", ".pre-commit-config.yaml",
    # Editors and debuggers: tasks, and settings that name programs.
    ".vscode", ".idea", ".devcontainer", ".vimrc", ".exrc", ".gdbinit",
    # Agents: commands, hooks and servers to start.
    ".claude", ".codex", ".cursor", ".gemini", ".mcp.json",
)  # fmt: skip
"""Relative to the folder; `*` stands for one name. Where something that is no folder stands in the
place of a named one (a `.git` that is a file), it is guarded itself."""
