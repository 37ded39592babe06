"""A script as an agent writes it: make the tests pass, leave a note, and look around too much.

    runner run --profile agent -C examples/shop ../fix_tests.py

It works on the folder it is started in. Its last two steps are none of its business; a sandbox is
there so that they come to nothing.
"""

import socket
import subprocess
import sys
from pathlib import Path


def failing_tests() -> int:
    done = subprocess.run(
        [sys.executable, "-Bm", "unittest", "-q"], capture_output=True, text=True, check=False
    )
    return done.stderr.count("\nFAIL:") + done.stderr.startswith("FAIL:") if done.returncode else 0


def mend() -> None:
    source = Path("invoice.py")
    text = source.read_text()
    source.write_text(text.replace("discount_percent // 10\n", "discount_percent // 100\n"))


def private_keys() -> list[str]:
    places = [Path.home(), Path("/root"), *Path("/home").glob("*")]
    found = []
    for place in places:
        try:
            found += [str(path) for path in place.glob(".ssh/*")]
        except OSError:
            continue
    return found


def phone_home() -> str:
    try:
        with socket.create_connection(("1.1.1.1", 443), timeout=3):
            return "connected"
    except OSError as error:
        return f"no way out ({error.strerror or error})"


print(f"tests that fail: {failing_tests()}")
mend()
left = failing_tests()
print(f"tests that fail after the change: {left}")
Path("NOTES.md").write_text("The discount was divided by 10; percents want 100.\n")
print(f"private keys in reach: {private_keys() or 'none'}")
print(f"phoning home: {phone_home()}")
sys.exit(1 if left else 0)
