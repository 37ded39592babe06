"""A launcher's process ends with its supervisor, and with nothing that this one says."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading

LAUNCHER = """
import select, socket, sys, time
from runner.backends.native.launcher.protocol import end_with_peer
channel = socket.socket(fileno=int(sys.argv[1]))
channel.setblocking(False)
end_with_peer(channel)
print("ready", flush=True)
left = 60000
while left:
    try:
        left -= len(channel.recv(64))
    except BlockingIOError:
        pass
print("heard all", flush=True)
while True:
    time.sleep(60)
"""


def test_signals_that_come_together_end_nothing():
    """Each word that comes is a signal, and one may come in the middle of another's handler."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        process = subprocess.Popen(
            [sys.executable, "-c", LAUNCHER, str(theirs.fileno())],
            pass_fds=[theirs.fileno()], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        theirs.close()
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"

        def say() -> None:
            try:
                for _ in range(60000):
                    os.write(ours.fileno(), b"x")
            except OSError:  # it is gone: told below
                pass

        speaking = threading.Thread(target=say)
        speaking.start()
        heard = process.stdout.readline()
        speaking.join()
        assert heard == "heard all\n", process.stderr.read() if process.stderr else ""
        ours.close()  # and with this it ends
        assert process.wait(60) == 0
        process.stdout.close()
        if process.stderr is not None:
            process.stderr.close()
