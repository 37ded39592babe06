"""The rival's side of `bench decide`, run by a Python that has it: it times itself.

Reads a line of JSON with the rules, then a line for each round; answers each with nanoseconds.
"""

from __future__ import annotations

import importlib
import json
import logging
import sys
import time
from typing import Any

AGENT = "did:mesh:measured"


def engine_of(rules: list[dict[str, Any]]) -> Any:
    """Its engine with a rule each, conditions in its own words."""
    module = importlib.import_module("agentmesh.governance.policy")
    made = [
        module.PolicyRule(
            name=rule["id"],
            condition=" and ".join(f"command.{k} == '{v}'" for k, v in rule["facts"].items()),
            action={"ask": "require_approval"}.get(rule["effect"], rule["effect"]),
        )
        for rule in rules
    ]
    engine = module.PolicyEngine(conflict_strategy="deny_overrides")
    engine.load_policy(
        module.Policy(name="measured", agents=["*"], rules=made, default_action="allow")
    )
    return engine


def main() -> int:
    logging.disable(logging.CRITICAL)
    engines = {
        int(count): engine_of(rules) for count, rules in json.loads(sys.stdin.readline()).items()
    }
    print('"ready"', flush=True)
    for line in sys.stdin:
        asked = json.loads(line)
        evaluate = engines[asked["rules"]].evaluate
        took_ns, allowed = [], True
        for _ in range(asked["times"]):
            contexts = [{"command": dict(facts)} for facts in asked["facts"]]
            began_ns = time.perf_counter_ns()
            answers = [evaluate(AGENT, context) for context in contexts]
            took_ns.append(time.perf_counter_ns() - began_ns)
            allowed = all(answer.allowed for answer in answers)
        print(json.dumps({"took_ns": took_ns, "allowed": allowed}), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
