"""A small agent: `python3 agent.py unix:/tmp/runner.sock`.

It proposes a command, runner decides and runs it, and what came of it is what the model is told
next. Here the model is a list of recorded answers, so that neither network nor key is needed: put
a call of yours in the place of `Recorded.next`.
"""

import json
import sys
from pathlib import Path

from runner import Outcome, connect

BUDGET_S = 60.0  # seconds of wall time that all commands may use together
MOST_STEPS = 20  # a model that goes round in circles ends here
FILES = {"shop.py": "def total(a, b):\n    return a - b\n"}


class Recorded:
    """Answers of a model; those marked `after` are given only if that is what it was told."""

    def __init__(self, path: Path) -> None:
        self._answers = iter(json.loads(path.read_text()))

    def next(self, told: str) -> dict[str, str | None]:
        for answer in self._answers:
            if told.startswith(answer.get("after", "")):
                return answer
        return {"thought": "I have nothing more to say.", "command": None}


def told_of(outcome: Outcome) -> str:
    """What a model can act on: the reason of a denial, else how it ended and what it said."""
    if outcome.termination == "denied":
        messages = [rule.message for rule in outcome.decision.rules if rule.message]
        return "denied: " + (" ".join(messages) or outcome.decision.reason)
    said = (outcome.stdout.data + outcome.stderr.data).decode(errors="replace")
    return f"{outcome.termination} {outcome.exit_code}: {said.strip()}"


def main() -> None:
    model = Recorded(Path(__file__).with_name("answers.json"))
    told, left_s = "begin", BUDGET_S
    # One session for the whole task: a file that a command wrote is there for the next one. It has
    # an end of its own too, so that it does not stay if this process is killed.
    with (
        connect(sys.argv[1]) as runner,
        runner.sessions.start(agent="mender", files=FILES, lifetime="10m") as session,
    ):
        for _ in range(MOST_STEPS):
            answer = model.next(told)
            print(f"# {answer['thought']}")
            if answer["command"] is None:
                break
            if left_s <= 0:
                print("# the budget is used up")
                break
            print(f"$ {answer['command']}")
            # No command may take more than what is left of the budget.
            outcome = session.run(shell=answer["command"], limits={"wall": f"{left_s:.3f}s"})
            left_s -= outcome.usage.wall_s or 0.0
            told = told_of(outcome)
            print(told)
        print(session.read("shop.py").decode(), end="")


main()
