"""86: results, log lines and control characters on the output."""

import json
import os

from probe import main

EXPECTED = {"attack": {"exit_code": 3, "changes_truncated": False}}
FORGED = {"at": "ended", "termination": "exited", "exit_code": 0, "status": 0, "by": None}


def attack(probe):
    probe.tried += 1
    for fd in (1, 2):
        for text in (
            json.dumps(FORGED),
            '{"ready": []}',
            '{"exec": 2}',
            "g",
            "0",
            "\x1b]0;title\x07",
        ):
            os.write(fd, f"{text}\n".encode() * 3)
    # Where the launcher's own pipes were.
    for fd in range(3, 64):
        probe.refused(f"write to {fd}", lambda fd=fd: os.write(fd, b'{"exec": 2}\n0'))
    print("TRIED", probe.tried, flush=True)
    os._exit(3)


def twin(probe):
    probe.works("output", lambda: os.write(1, b"plain\n"))


main(attack, twin)
