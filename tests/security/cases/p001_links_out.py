"""1, 2, 8: links of the workspace that lead out of it, followed in every way."""

import os
import struct

from probe import call, link, main, read

GAPS = {
    "bind": {
        "openat2 OSError": "openat2 is refused: a filter can't see whether it sets set-ID bits",
    },
}


def openat2(path, resolve):
    how = struct.pack("=QQQ", os.O_RDONLY, 0, resolve)
    return call("openat2", -100, path.encode() + b"\0", how, len(how))


def attack(probe):
    secret = probe.facts["secret"]
    for path in ("link", "chain", "up/secret", secret, "../outside/secret"):
        probe.refused(f"read {path}", lambda path=path: read(path))
        probe.refused(f"write {path}", lambda path=path: os.open(path, os.O_WRONLY))
        probe.refused(f"truncate {path}", lambda path=path: os.truncate(path, 0))
        for resolve in (0, 0x04, 0x08, 0x10):
            probe.refused(f"openat2 {path}", lambda path=path, r=resolve: openat2(path, r))
    held = os.open("link", os.O_PATH | os.O_NOFOLLOW)
    probe.refused("reopen a link", lambda: read(f"/proc/self/fd/{held}"))
    probe.refused("linkat of a link", lambda: link("link", "mine"))
    probe.refused("list", lambda: os.listdir(probe.facts["outside"]))
    top = os.open("/", os.O_PATH)
    for path in (".." + secret, "../.." + secret):
        probe.refused("above the root", lambda path=path: os.open(path, os.O_RDONLY, dir_fd=top))


def twin(probe):
    os.symlink("old", "inside")
    os.symlink("inside", "again")
    probe.same("link", probe.works("link", lambda: read("again")), b"old")
    probe.works("openat2", lambda: openat2("old", 0x08))
    held = os.open("old", os.O_PATH)
    probe.same("reopened", read(f"/proc/self/fd/{held}"), b"old")
    os.unlink("link")
    probe.works("a link of its own", lambda: os.symlink("elsewhere", "link"))


main(attack, twin)
