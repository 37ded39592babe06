"""98: as many words and variables as an exec takes, and more."""

import errno
import os
import resource
import time

from probe import in_child, main

LIMITS = {"memory": "128MiB", "wall": "25s"}
EXPECTED = {"attack": {"termination": "limit", "limit": "memory"}}
LONG = "x" * 131_000  # just under MAX_ARG_STRLEN (execve(2))


def run(words, variables):
    """Exec `true` with them in a child; OSError as the exec fails."""
    failed, say = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.execve("/bin/true", words, variables)
        except OSError as error:
            os.write(say, error.errno.to_bytes(2, "little"))
        os._exit(1)
    os.close(say)
    os.waitpid(pid, 0)
    if code := os.read(failed, 2):
        raise OSError(int.from_bytes(code, "little"), "execve")


def attack(probe):
    probe.refused("a word too long", lambda: run(["x" * (1 << 20)], {}), errno.E2BIG)
    probe.refused("too many words", lambda: run(["x"] * 2_000_000, {}), errno.E2BIG, errno.ENOMEM)
    probe.refused("many long ones", lambda: run([LONG] * 200, {}), errno.E2BIG)
    many = {f"V{number}": LONG for number in range(200)}
    probe.refused("many variables", lambda: run(["true"], many), errno.E2BIG)
    probe.begun()
    # As much as is allowed, held by many that sleep.
    _, hard = resource.getrlimit(resource.RLIMIT_STACK)
    resource.setrlimit(resource.RLIMIT_STACK, (hard, hard))
    for _ in range(60):
        if os.fork() == 0:
            os.execve("/bin/sleep", ["sleep", "60"], {f"V{n}": LONG for n in range(44)})
    time.sleep(60)


def twin(probe):
    probe.works("some words", lambda: run([LONG] * 4, {"V": LONG}))
    probe.same("a child", in_child(lambda: None), 0)


main(attack, twin)
