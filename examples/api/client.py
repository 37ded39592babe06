"""The exec API from Python: `python3 client.py unix:/tmp/runner.sock`.

The client needs the standard library alone, and has the methods of `runner.Runner`.
"""

import sys

from runner import connect
from runner.model.following import Over, Written

with connect(sys.argv[1]) as runner:
    # Run something, and wait for what comes of it. Without `cwd` it has a fresh folder.
    outcome = runner.run(
        code="print(open('n').read() * 3)",
        language="python",
        files={"n": "7"},
        agent="client",
        limits={"wall": "10s"},
    )
    print("output:", outcome.stdout.data.decode().strip())

    # Follow it while it goes on.
    with runner.stream(shell="echo one; echo two", agent="client") as events:
        for event in events:
            match event:
                case Written(stream="stdout", data=data):
                    print("came:", data.decode().split())
                case Over(outcome=outcome):
                    print("ended:", outcome.termination)

    # A denial is a result and no exception; so is a limit. `reason` says what it is about.
    outcome = runner.run(["sudo", "ls"], agent="client")
    print("denied:", outcome.termination == "denied", "|", outcome.decision.reason)

    # What would be decided, without running it.
    print("would be:", runner.check(["sudo", "ls"], agent="client").effect)

    # A session: the next command finds what the last one left. Leaving the `with` ends it.
    with runner.sessions.start(agent="client", files={"n": "7"}) as session:
        session.run(shell="echo $(($(cat n) * 6)) > out")
        print("in the session:", session.read("out").decode().strip())
