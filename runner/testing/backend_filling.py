"""Programs of the contract that fill the folder which their argument names, and wait."""

from __future__ import annotations

FILL = """
import os, sys, time
try:
    with open(sys.argv[1] + "/filler", "wb") as file:
        while True:
            file.write(b"x" * 65536); file.flush()
except OSError:
    pass
time.sleep(1000)
"""
FILL_INODES = """
import sys, time
try:
    for n in range(1000000):
        open(f"{sys.argv[1]}/f{n}", "w").close()
except OSError:
    pass
time.sleep(1000)
"""
