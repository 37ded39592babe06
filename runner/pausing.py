"""The loop guard at work: what a transaction remembers of commands, and looking at it, for people.

A command is known by a keyed digest: its text may hold secrets, and stands nowhere.
"""

from __future__ import annotations

from dataclasses import dataclass

from runner import looping, records
from runner.books import Books
from runner.granting import moment
from runner.model.loop_guard import Guarded, Guarding, Paused, Trigger
from runner.model.profile import Profile
from runner.model.request import ExecRequest
from runner.ports import Transaction


def paused(
    books: Books, request: ExecRequest, profile: Profile, guard: Guarding | None, now_s: float
) -> Paused | None:
    """The pause in force for what is asked. RecordError, StateError: it can't be told."""
    if guard is None:
        return None
    key = books.fingerprint(looping.identity(request, profile))
    return looping.pausing(books.looped(key), guard, now_s)


@dataclass(frozen=True, slots=True)
class Watch:
    """One request under the loop guard: told what its tries come to."""

    request: ExecRequest
    profile: Profile
    guard: Guarding

    def refused(self, tx: Transaction, run_id: str | None, now_s: float) -> None:
        """It was refused, by anything but the guard itself; with the event of a pause."""
        self._note(tx, Trigger.REFUSED.value, run_id, now_s)

    def ended(self, tx: Transaction, how: bytes | None, run_id: str, now_s: float) -> None:
        """It ran; `how`: as `looping.failure` has it."""
        if how is None:
            return
        if how:
            self._note(tx, f"{Trigger.FAILING.value}:{tx.fingerprint(how)}", run_id, now_s)
            return
        key = self._key(tx)
        if tx.looped(key) is not None:
            tx.forget_loop(key)

    def _key(self, tx: Transaction) -> str:
        return tx.fingerprint(looping.identity(self.request, self.profile))

    def _note(self, tx: Transaction, sign: str, run_id: str | None, now_s: float) -> None:
        key = self._key(tx)
        before = tx.looped(key)
        looped, pauses = looping.after(before, sign, self.guard, now_s)
        if looped is None:
            if before is not None:
                tx.forget_loop(key)
            return
        who = self.request.principal
        forgotten_s = looping.forgotten_s(looped, self.guard)
        whose = looping.family(self.request)
        tx.remember_loop(Guarded(key, whose, who.uid, looped), forgotten_s)
        if pauses:
            until = moment(looped.until_s)
            layer = self.guard.layer
            tx.append(
                records.guard_paused(run_id, who, key, layer=layer, looped=looped, until=until)
            )
