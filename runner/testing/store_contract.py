"""What every store must do. A store exists once it passes this suite.

    class TestMyStore(StoreContract):
        def make_store(self) -> Store:
            return my_store.create(self.place, clock)

pytest finds the `test_` methods of the subclass; nothing here imports pytest. Within one test all
calls of `make_store` open the same log, as several processes would; each test starts with none.
"""

# ruff: noqa: D102  (a test's name is the sentence that its docstring would be)

from __future__ import annotations

import os
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

from runner.audit.canonical import parse_canonical
from runner.audit.event import NO_PREVIOUS, rfc3339
from runner.audit.merkle import leaf_hash, tree_of
from runner.errors import RecordError
from runner.model.event import AuditEvent, EventDraft, EventKind
from runner.model.keeping import KeepBounds
from runner.model.limits import UNLIMITED
from runner.model.principal import Principal
from runner.model.rule import CountOf
from runner.model.usage import Usage
from runner.ports import Store, Totals
from runner.testing.store_api_keys import ApiKeyContract
from runner.testing.store_approvals import ApprovalContract
from runner.testing.store_budgets import BudgetContract
from runner.testing.store_checkpoints import CheckpointContract
from runner.testing.store_kills import KillContract
from runner.testing.store_loops import LoopContract

CODER = Principal(uid=1000, agent="coder", parent="planner", session="s", tenant="t")


class _BlockFailedError(Exception):
    """What a test raises inside a transaction."""


class StoreContract(
    ApiKeyContract,
    ApprovalContract,
    BudgetContract,
    CheckpointContract,
    KillContract,
    LoopContract,
):
    """Subclass it and say how to make a store."""

    def test_a_new_log_says_when_it_was_made(self) -> None:
        with _open(self.make_store) as store:
            events = list(store.events())
            _same([e.kind for e in events], [EventKind.LOG_CREATED.value])
            _same((events[0].seq, events[0].previous), (0, NO_PREVIOUS))
            _same(store.head().size, 1)
            _same(list(store.totals()), [])

    def test_events_stand_in_order_and_hash_as_they_say(self) -> None:
        with _open(self.make_store) as store:
            appended = [_append(store, n) for n in range(5)]
            events = list(store.events())
            _same(events[1:], appended)
            _same([e.seq for e in events], list(range(6)))
            previous = NO_PREVIOUS
            for event in events:
                _same(event.leaf_hash, leaf_hash(event.body))
                _same(event.previous, previous)
                previous = event.leaf_hash
                body = parse_canonical(event.body)
                _true(isinstance(body, dict), "an event's bytes are a JSON object")
                if isinstance(body, dict):
                    told = (body["seq"], body["time"], body["kind"], body["run"], body["prev"])
                    columns = (event.seq, event.time, event.kind, event.run_id)
                    _same(told, (*columns, event.previous.hex()))

    def test_the_head_is_the_tree_over_all_events(self) -> None:
        with _open(self.make_store) as store:
            for n in range(7):
                _append(store, n)
                hashes = [e.leaf_hash for e in store.events()]
                head = store.head()
                _same(head.size, n + 2)
                _same(head.last_hash, hashes[-1].hex())
                _same(head.root, tree_of(hashes).root.hex())

    def test_what_was_written_is_there_when_the_log_is_opened_again(self) -> None:
        with _open(self.make_store) as store:
            _append(store, 1)
            before = (list(store.events()), store.head())
        with _open(self.make_store) as store:
            _same((list(store.events()), store.head()), before)

    def test_two_openings_see_one_log(self) -> None:
        with _open(self.make_store) as first, _open(self.make_store) as second:
            appended = [_append(store, n) for n, store in enumerate([first, second, first, second])]
            _same(list(first.events(start=1)), appended)
            _same(list(second.events(start=1)), appended)
            _same(first.head(), second.head())

    def test_a_block_that_raises_leaves_nothing(self) -> None:
        with _open(self.make_store) as store:
            head = store.head()
            try:
                with store.transaction() as transaction:
                    transaction.append(_draft(1))
                    transaction.open_run("run-1", CODER, "agent", "native")
                    raise _BlockFailedError
            except _BlockFailedError:
                pass
            _same(store.head(), head)
            _same(list(store.totals()), [])
            _append(store, 2)
            _same(store.head().size, 2)

    def test_a_transaction_holds_all_its_events(self) -> None:
        with _open(self.make_store) as store:
            with store.transaction() as transaction:
                first = transaction.append(_draft(1))
                second = transaction.append(_draft(2))
            _same(second.previous, first.leaf_hash)
            _same(list(store.events(start=1)), [first, second])

    def test_a_transaction_ends_with_its_block(self) -> None:
        with _open(self.make_store) as store:
            with store.transaction() as transaction:
                pass
            _refused(lambda: transaction.append(_draft(1)))
            _same(store.head().size, 1)

    def test_what_is_no_json_is_refused(self) -> None:
        with _open(self.make_store) as store:
            for value in (float("nan"), 2**53, b"bytes", object()):

                def append(value: object = value) -> None:
                    with store.transaction() as transaction:
                        draft = EventDraft(EventKind.RUN_ENDED, {"value": value}, None, "run-1")
                        transaction.append(draft)

                _refused(append)
            _same(store.head().size, 1)

    def test_text_that_is_not_utf8_is_recorded(self) -> None:
        with _open(self.make_store) as store:
            with store.transaction() as transaction:
                principal = Principal(uid=1, agent="a\udcff", parent="p\udc80")
                data = {"argv": ["\udcfe"]}
                transaction.append(EventDraft(EventKind.RUN_DECIDED, data, principal, "run-1"))
                transaction.open_run("run-1", principal, "agent", "native")
            with store.transaction() as transaction:
                transaction.close_run("run-1", Usage(wall_s=1.0))
            _same(store.head().size, 2)

    def test_events_of_one_run_and_from_a_number_on(self) -> None:
        with _open(self.make_store) as store:
            appended = [_append(store, n, run_id=f"run-{n % 2}") for n in range(6)]
            _same(list(store.events("run-1")), appended[1::2])
            _same(list(store.events("run-1", start=4)), [e for e in appended[1::2] if e.seq >= 4])
            _same(list(store.events(start=99)), [])
            _same(list(store.events("run-9")), [])

    def test_many_events_are_read_in_order(self) -> None:
        with _open(self.make_store) as store:
            with store.transaction() as transaction:
                for n in range(600):
                    transaction.append(_draft(n))
            _same([e.seq for e in store.events()], list(range(601)))

    def test_a_run_is_charged_to_agent_parent_and_uid(self) -> None:
        with _open(self.make_store) as store:
            _run(store, "run-1", CODER, Usage(wall_s=1.5))
            _run(store, "run-2", Principal(uid=1000, agent="planner"), Usage(wall_s=0.25))
            _run(store, "run-3", Principal(uid=7, agent="x", parent="x"), Usage())
            _same(
                sorted(store.totals(), key=lambda t: (t.scope, t.key)),
                [
                    Totals("agent", "coder", 1, 1.5),
                    Totals("agent", "planner", 2, 1.75),
                    Totals("agent", "x", 1, 0.0),
                    Totals("uid", "1000", 2, 1.75),
                    Totals("uid", "7", 1, 0.0),
                ],
            )

    def test_runs_are_counted_by_whom_they_belong_to(self) -> None:
        with _open(self.make_store) as store:
            _run(store, "run-1", CODER, Usage())
            _run(store, "run-2", Principal(uid=1000, agent="planner", tenant="t"), Usage())
            _begin(store, "run-3", Principal(uid=1001, agent="coder", session="s"))
            _same(store.runs_since(CODER, CountOf.AGENT, 0.0), 2)
            # What it started is charged to it as well.
            _same(store.runs_since(Principal(1000, "planner"), CountOf.AGENT, 0.0), 2)
            _same(store.runs_since(CODER, CountOf.SESSION, 0.0), 2)
            _same(store.runs_since(CODER, CountOf.TENANT, 0.0), 2)
            _same(store.runs_since(CODER, CountOf.UID, 0.0), 2)
            _same(store.runs_since(CODER, CountOf.ALL, 0.0), 3)
            # Who names no session is not uncounted for that.
            _same(store.runs_since(Principal(1), CountOf.SESSION, 0.0), 1)
            far_s = 4_000_000_000.0
            _same(store.runs_since(CODER, CountOf.ALL, far_s), 0)
            # The parent's are those that it is charged with; who has none has none of one's.
            _same(store.runs_since(CODER, CountOf.PARENT, 0.0), 2)
            _same(store.runs_since(Principal(1000, "planner"), CountOf.PARENT, 0.0), 0)

    def test_it_is_known_when_the_latest_runs_began(self) -> None:
        with _open(self.make_store) as store:
            for n in range(3):
                _begin(store, f"run-{n}", CODER)
            began_s = [store.began_s(CODER, CountOf.AGENT, 0.0, n) for n in (3, 2, 1)]
            times = [event.time for event in store.events(start=1)]
            told = [None if each is None else rfc3339(each) for each in began_s]
            _true(all(each is not None for each in told), "a run that began has a beginning")
            _same(told, sorted(str(each) for each in told))
            _true(str(told[0]) >= times[0], "a run began before it was opened")
            _same(store.began_s(CODER, CountOf.AGENT, 0.0, 4), None)
            _same(store.began_s(Principal(1, "planner"), CountOf.AGENT, 0.0, 1), began_s[2])
            _same(store.began_s(Principal(1, "other"), CountOf.AGENT, 0.0, 1), None)
            with store.transaction() as transaction:
                _same(transaction.began_s(CODER, CountOf.AGENT, 0.0, 3), began_s[0])

    def test_a_transaction_counts_what_it_did_itself(self) -> None:
        with _open(self.make_store) as store:
            _begin(store, "run-1", CODER)
            try:
                with store.transaction() as transaction:
                    _same(transaction.runs_since(CODER, CountOf.AGENT, 0.0), 1)
                    transaction.open_run("run-2", CODER, "agent", "native")
                    _same(transaction.runs_since(CODER, CountOf.AGENT, 0.0), 2)
                    raise _BlockFailedError
            except _BlockFailedError:
                pass
            with store.transaction() as transaction:
                _same(transaction.runs_since(CODER, CountOf.AGENT, 0.0), 1)
            _refused(lambda: transaction.runs_since(CODER, CountOf.AGENT, 0.0))
            _refused(lambda: transaction.began_s(CODER, CountOf.AGENT, 0.0, 1))

    def test_who_counts_and_opens_in_one_transaction_never_passes_a_limit(self) -> None:
        """Eight processes of four threads each, which all begin at the same moment."""
        limit, tries = 40, 4
        with _open(self.make_store) as store:
            _same(store.runs_since(CODER, CountOf.AGENT, 0.0), 0)
        passed = _in_processes(8, lambda n: self._try_to_pass(n, limit, tries))
        with _open(self.make_store) as store:
            _same(sum(passed), limit)
            _same(store.runs_since(CODER, CountOf.AGENT, 0.0), limit)
            _same(store.head().size, 1 + limit)

    def _try_to_pass(self, process: int, limit: int, tries: int) -> int:
        """How many of the runs of four threads were under the limit."""
        passed: list[str] = []
        failures: list[BaseException] = []
        with _open(self.make_store) as store:

            def work(thread: int) -> None:
                try:
                    for n in range(tries):
                        run_id = f"run-{process}-{thread}-{n}"
                        with store.transaction() as transaction:
                            counted = transaction.runs_since(CODER, CountOf.AGENT, 0.0)
                            if counted < limit:
                                draft = EventDraft(EventKind.RUN_DECIDED, {}, CODER, run_id)
                                transaction.append(draft)
                                transaction.open_run(run_id, CODER, "agent", "native")
                        if counted < limit:
                            passed.append(run_id)
                except BaseException as error:
                    failures.append(error)

            threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        _same(failures, [])
        return len(passed)

    def test_a_run_id_is_used_once(self) -> None:
        with _open(self.make_store) as store:
            _run(store, "run-1", CODER, Usage())
            _refused(lambda: _run(store, "run-1", CODER, Usage()))
            _same({t.calls for t in store.totals()}, {1})

    def test_a_run_is_closed_once(self) -> None:
        with _open(self.make_store) as store:
            _run(store, "run-1", CODER, Usage(wall_s=1.0))
            _refused(lambda: _close(store, "run-1"))
            _refused(lambda: _close(store, "run-9"))
            _same({t.wall_s for t in store.totals()}, {1.0})

    def test_run_ids_are_names(self) -> None:
        with _open(self.make_store) as store:
            for run_id in ("", "../x", "a/b", "A", "a\n", "é", ".", "x" * 129):
                for act in (_run_of, _keep_of, _kept_of):
                    _refused(partial(act, store, run_id))
            _same(store.head().size, 1)

    def test_runs_of_the_living_are_left_alone(self) -> None:
        with _open(self.make_store) as alive, _open(self.make_store) as other:
            _begin(alive, "run-1", CODER)
            _same(alive.recover(), [])
            _same(other.recover(), [])
            _close(alive, "run-1")

    def test_runs_of_the_gone_are_closed_once(self) -> None:
        with _open(self.make_store) as gone:
            for n in range(3):
                _begin(gone, f"run-{n}", CODER)
            _close(gone, "run-1")
        with _open(self.make_store) as first, _open(self.make_store) as second:
            _same(first.recover(), ["run-0", "run-2"])
            _same(second.recover(), [])
            found = [e for e in first.events() if e.kind == EventKind.RUN_RECOVERED.value]
            _same([e.run_id for e in found], ["run-0", "run-2"])
            for event in found:
                body = parse_canonical(event.body)
                if isinstance(body, dict):
                    _same(body["data"]["termination"], "unknown")
                    _same(body["principal"]["agent"], "coder")
            _refused(lambda: _close(first, "run-0"))
            _same({t.calls for t in first.totals()}, {3})

    def test_threads_write_without_a_gap(self) -> None:
        with _open(self.make_store) as store:
            failures: list[BaseException] = []

            def write(thread: int) -> None:
                try:
                    for n in range(10):
                        _run(store, f"run-{thread}-{n}", CODER, Usage(wall_s=0.5))
                except BaseException as error:
                    failures.append(error)

            threads = [threading.Thread(target=write, args=(n,)) for n in range(6)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            _same(failures, [])
            hashes = [e.leaf_hash for e in store.events()]
            _same(len(hashes), 1 + 6 * 10 * 2)
            _same(store.head().root, tree_of(hashes).root.hex())
            _same({(t.calls, t.wall_s) for t in store.totals()}, {(60, 30.0)})

    def test_one_thread_that_fails_takes_nothing_of_others_with_it(self) -> None:
        with _open(self.make_store) as store:
            fine: list[AuditEvent] = []

            def write(fails: bool) -> None:
                for n in range(15):
                    try:
                        with store.transaction() as transaction:
                            event = transaction.append(_draft(n))
                            if fails:
                                raise _BlockFailedError
                        fine.append(event)
                    except _BlockFailedError:
                        pass

            threads = [threading.Thread(target=write, args=(n % 2 == 1,)) for n in range(6)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            _same(list(store.events(start=1)), sorted(fine, key=lambda e: e.seq))
            _same(len(fine), 45)

    def test_output_is_kept_and_appended_to(self) -> None:
        with _open(self.make_store) as store:
            store.keep_output("run-1", "stdout", b"one\x00")
            store.keep_output("run-1", "stdout", b"\xfftwo")
            store.keep_output("run-1", "stderr", b"")
            _same(store.kept_output("run-1", "stdout"), b"one\x00\xfftwo")
            _same(store.kept_output("run-1", "stderr"), b"")
            _same(store.kept_output("run-2", "stdout"), None)
            store.keep_output("run-2", "program", b"echo \xff")
            _same(store.kept_output("run-2", "program"), b"echo \xff")
            _refused(lambda: store.keep_output("run-1", "stdin", b"x"))

    def test_kept_output_past_its_bounds_is_discarded(self) -> None:
        with _open(self.make_store) as store:
            _begin(store, "run-open", CODER)
            _begin(store, "run-over", CODER)
            for run_id in ("run-open", "run-over"):
                store.keep_output(run_id, "stdout", b"12345")
            _close(store, "run-over")
            _true(not store.discard_outdated(KeepBounds(UNLIMITED, 5)), "what fits was discarded")
            swept = store.discard_outdated(KeepBounds(UNLIMITED, 4))
            _same((len(swept.removed), swept.left), (1, ()))
            _same(store.kept_output("run-over", "stdout"), None)
            _same(store.kept_output("run-open", "stdout"), b"12345")
            last = list(store.events())[-1]
            _same(last.kind, EventKind.OUTPUT_DISCARDED.value)
            _same(last.run_id, None)

    def test_closing_twice_is_nothing(self) -> None:
        store = self.make_store()
        store.close()
        store.close()


def _in_processes(count: int, work: Callable[[int], int]) -> list[int]:
    """What `work` returns (0 to 254) in so many forked processes, begun together."""
    gate, opened = os.pipe()
    pids = []
    for n in range(count):
        pid = os.fork()
        if pid == 0:
            status = _FAILED
            try:
                os.close(opened)
                os.read(gate, 1)  # until the other end is closed
                status = work(n)
            except BaseException:
                traceback.print_exc()
            finally:
                sys.stderr.flush()
                os._exit(status)
        pids.append(pid)
    os.close(gate)
    os.close(opened)
    returned = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]
    _true(_FAILED not in returned and min(returned) >= 0, f"a process failed: {returned}")
    return returned


_FAILED = 255


def _draft(n: int, run_id: str = "run-1") -> EventDraft:
    return EventDraft(EventKind.RUN_DECIDED, {"n": n, "half": n / 2}, CODER, run_id)


def _append(store: Store, n: int, run_id: str = "run-1") -> AuditEvent:
    with store.transaction() as transaction:
        return transaction.append(_draft(n, run_id))


def _begin(store: Store, run_id: str, principal: Principal) -> None:
    with store.transaction() as transaction:
        transaction.append(EventDraft(EventKind.RUN_DECIDED, {}, principal, run_id))
        transaction.open_run(run_id, principal, "agent", "native")


def _close(store: Store, run_id: str, usage: Usage = Usage()) -> None:  # noqa: B008  (frozen)
    with store.transaction() as transaction:
        transaction.append(EventDraft(EventKind.RUN_ENDED, {}, None, run_id))
        transaction.close_run(run_id, usage)


def _run_of(store: Store, run_id: str) -> None:
    _run(store, run_id, CODER, Usage())


def _keep_of(store: Store, run_id: str) -> None:
    store.keep_output(run_id, "stdout", b"x")


def _kept_of(store: Store, run_id: str) -> None:
    store.kept_output(run_id, "stdout")


def _run(store: Store, run_id: str, principal: Principal, usage: Usage) -> None:
    _begin(store, run_id, principal)
    _close(store, run_id, usage)


@contextmanager
def _open(make_store: Callable[[], Store]) -> Iterator[Store]:
    store = make_store()
    try:
        yield store
    finally:
        store.close()


def _same(found: object, expected: object) -> None:
    _true(found == expected, f"found {found!r}, expected {expected!r}")


def _true(condition: bool, message: str) -> None:
    if not condition:
        raise AssertionError(message)


def _refused(act: Callable[[], object]) -> None:
    try:
        act()
    except RecordError:
        return
    raise AssertionError("a RecordError was expected and none came")
