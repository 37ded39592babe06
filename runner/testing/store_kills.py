"""What every store must do for the kill switch; a part of `store_contract`."""

# ruff: noqa: D102  (a test's name is the sentence that its docstring would be)

from __future__ import annotations

from abc import ABC, abstractmethod
from contextlib import closing
from dataclasses import replace

from runner.model.kill import Kill, KillScope
from runner.model.principal import Principal
from runner.model.usage import Usage
from runner.ports import Store

_CODER = Principal(uid=7, agent="coder", session="s1", tenant="acme")
_CHILD = Principal(uid=7, agent="helper", parent="coder")
_OTHER = Principal(uid=8, agent="other", tenant="globex")


class KillContract(ABC):
    """Subclass `StoreContract`."""

    @abstractmethod
    def make_store(self) -> Store:
        """Open the log of this test; the first call of a test makes it."""

    def test_open_runs_are_told_until_they_are_closed(self) -> None:
        with closing(self.make_store()) as first, closing(self.make_store()) as second:
            _open(first, "run-1", _CODER)
            _open(second, "run-2", _CHILD)
            told = list(first.open_runs())
            _same(
                [(run.run_id, run.principal) for run in told],
                [("run-1", _CODER), ("run-2", _CHILD)],
            )
            _same((told[0].profile, told[0].backend), ("agent", "fake"))
            with second.transaction() as tx:
                tx.close_run("run-2", Usage())
                _same([run.run_id for run in tx.open_runs()], ["run-1"])

    def test_a_kill_hits_whom_it_names_and_nobody_else(self) -> None:
        with closing(self.make_store()) as store:
            for number, who in enumerate((_CODER, _CHILD, _OTHER), 1):
                _open(store, f"run-{number}", who)
            for scope, name, runs, stopped in (
                (KillScope.ALL, "", [1, 2, 3], [_CODER, _CHILD, _OTHER]),
                (KillScope.AGENT, "coder", [1, 2], [_CODER, _CHILD]),
                (KillScope.AGENT, "helper", [2], [_CHILD]),
                (KillScope.AGENT, "code", [], []),
                (KillScope.AGENT, "CODER", [], []),
                (KillScope.AGENT, "c%", [], []),
                (KillScope.SESSION, "s1", [1], [_CODER]),
                (KillScope.TENANT, "globex", [3], [_OTHER]),
                (KillScope.TENANT, "coder", [], []),
                (KillScope.RUN, "run-3", [3], []),
            ):
                what = f"{scope} {name!r}"
                expected = {f"run-{number}" for number in runs}
                _same({run.run_id for run in store.open_runs(scope, name)}, expected, what)
                with store.transaction() as tx:
                    tx.set_kill(Kill(scope, name, "uid:0", "why", 5.0))
                _same(set(store.killed_runs()), expected, what)
                for who in (_CODER, _CHILD, _OTHER):
                    _same(store.killed(who) is not None, who in stopped, f"{what} for {who}")
                with store.transaction() as tx:
                    _same(tx.lift_kill(scope, name), True, what)
                    _same(tx.lift_kill(scope, name), False, what)
                _same(dict(store.killed_runs()), {}, what)

    def test_a_kill_is_there_for_all_openings_until_it_is_lifted(self) -> None:
        kill = Kill(KillScope.AGENT, "co\ufffder \udcff", "key:ops", "it loops; stop \udc80", 17.25)
        who = replace(_OTHER, agent=kill.name)
        with closing(self.make_store()) as first, first.transaction() as tx:
            tx.set_kill(kill)
            _same(tx.killed(who), kill)
            _same(tx.killed(_OTHER), None)
        with closing(self.make_store()) as later:
            _same(list(later.kills()), [kill])
            _same(later.killed(who), kill)
            with later.transaction() as tx:
                again = replace(kill, reason="and again", since_s=18.5)
                tx.set_kill(again)
            _same(list(later.kills()), [again])

    def test_a_kill_of_a_run_is_over_with_it(self) -> None:
        with closing(self.make_store()) as store:
            _open(store, "run-1", _CODER)
            kill = Kill(KillScope.RUN, "run-1", "uid:0", "why", 5.0)
            with store.transaction() as tx:
                tx.set_kill(kill)
            _same(dict(store.killed_runs()), {"run-1": kill})
            _same(store.killed(_CODER), None)
            with store.transaction() as tx:
                tx.close_run("run-1", Usage())
            _same(list(store.kills()), [])


def _open(store: Store, run_id: str, who: Principal) -> None:
    with store.transaction() as tx:
        tx.open_run(run_id, who, "agent", "fake")


def _same(found: object, expected: object, what: str = "") -> None:
    if found != expected:
        raise AssertionError(f"{what}: {found!r} is not {expected!r}")
