"""Looks up symbolic links of a workspace, for rules on paths."""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence

LOOKUPS_LIMIT = 2048
"""Of one decision: each takes microseconds, and a text can name any number of paths."""
_HOPS_LIMIT = 40
"""As the kernel's own (path_resolution(7))."""


def find(workspace: str, paths: Sequence[str]) -> dict[str, str]:
    """The links in the workspace that these absolute paths go through, each with what it holds.

    Looks at nothing outside of the workspace, which is another file system inside the sandbox. What
    can't be looked up is no link. A program may make others later: the sandbox contains what these
    lead to, and rules steer.
    """
    inside = workspace.rstrip("/") + "/"
    links: dict[str, str] = {}
    plain: set[str] = set()
    missing: set[str] = set()
    for path in paths:
        left = path.split("/")[::-1]
        here, hops = "", 0
        while left:
            part = left.pop()
            if part in ("", "."):
                continue
            if part == "..":
                here = here.rpartition("/")[0]
                continue
            here = f"{here}/{part}"
            if not here.startswith(inside) or here in plain:
                continue
            if here not in links:
                if here in missing or len(links) + len(plain) + len(missing) >= LOOKUPS_LIMIT:
                    break
                try:
                    links[here] = os.readlink(here)  # noqa: PTH115  (a path takes as long again)
                except (OSError, ValueError) as error:
                    there = isinstance(error, OSError) and error.errno == errno.EINVAL
                    (plain if there else missing).add(here)
                    if there:
                        continue
                    break  # nothing stands below it
            hops += 1
            if hops > _HOPS_LIMIT:
                break
            target = links[here]
            left += target.split("/")[::-1]
            here = "" if target.startswith("/") else here.rpartition("/")[0]
    return links
