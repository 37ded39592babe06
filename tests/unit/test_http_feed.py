"""The events of a run: numbered, bounded, and never silently cut."""

from __future__ import annotations

import asyncio
import json
import select
from contextlib import closing

from runner.pacing import Pace
from runner.surfaces.http.feed import UNTAKEN_BYTES, Feed, Told


async def heard(feed: Feed, after: int = 0) -> list[Told]:
    return [told async for told in feed.follow(after) if told is not None]


def kinds(events: list[Told]) -> list[tuple[str, str]]:
    return [(told.id, told.kind) for told in events]


def test_who_comes_late_gets_all_and_who_comes_back_the_rest():
    async def test() -> None:
        feed = Feed(asyncio.get_running_loop())
        feed.tell("decision", {})
        feed.output("stdout", b"a")
        feed.output("stdout", b"\xff")
        feed.end("outcome", {})
        feed.end("error", {})
        feed.tell("output", {"too": "late"})
        everything = await heard(feed)
        assert kinds(everything) == [
            ("1", "decision"), ("2", "output"), ("3", "output"), ("end", "outcome"),
        ]  # fmt: skip
        assert json.loads(everything[2].data) == {
            "stream": "stdout", "offset": 1, "data": "/w==", "encoding": "base64",
        }  # fmt: skip
        assert await heard(feed, 2) == everything[2:]
        # A number that was never given says nothing of what its reader has.
        assert await heard(feed, 10**9) == everything

    asyncio.run(test())


def test_what_is_held_has_a_bound_and_what_went_is_said():
    async def test() -> None:
        feed = Feed(asyncio.get_running_loop(), most_bytes=5000)
        feed.tell("decision", {})
        for _ in range(1000):
            feed.output("stdout", b"x" * 500)
            assert feed.held_bytes <= 5000
        feed.end("outcome", {})
        first, dropped, *rest, last = await heard(feed)
        assert (first.kind, dropped.kind, last.kind) == ("decision", "dropped", "outcome")
        missed = json.loads(dropped.data)
        assert missed["from"] == 2
        assert int(rest[0].id) == missed["to"] + 1
        assert dropped.id == str(missed["to"])
        assert await heard(feed, missed["to"]) == [*rest, last]
        offset = json.loads(rest[0].data)["offset"]
        assert offset == (missed["to"] - 1) * 500

    asyncio.run(test())


def test_readers_wake_for_what_other_threads_tell():
    async def test() -> None:
        feed = Feed(asyncio.get_running_loop())
        readers = [asyncio.create_task(heard(feed)) for _ in range(3)]

        def tell() -> None:
            feed.tell("decision", {})
            for number in range(100):
                feed.tell("output", {"number": number})
            feed.end("outcome", {})

        await asyncio.to_thread(tell)
        for events in await asyncio.gather(*readers):
            assert len(events) == 102

    asyncio.run(test())


def test_an_event_is_as_readers_of_such_streams_expect():
    assert Told("7", "usage", b"{}").encoded() == b"id: 7\nevent: usage\ndata: {}\n\n"


def may_write(pace: Pace) -> bool:
    poll = select.poll()
    poll.register(pace.fileno(), select.POLLOUT)
    return bool(poll.poll(0))


def test_output_waits_for_its_owner_and_for_nobody_else():
    async def test() -> None:
        with closing(Pace()) as pace:
            feed = Feed(asyncio.get_running_loop(), pace=pace)
            feed.tell("decision", {})
            pieces = 0
            while may_write(pace):
                feed.output("stdout", b"x" * 65536)
                pieces += 1
            assert pieces == -(-UNTAKEN_BYTES // 65536)
            stranger = feed.follow(0)
            for _ in range(pieces + 1):
                await anext(stranger)
            assert not may_write(pace)  # whoever else reads
            owner = feed.follow(0, owner=True)
            for _ in range(pieces + 1):
                await anext(owner)
            feed.output("stdout", b"x")
            await anext(owner)
            assert may_write(pace)
            for _ in range(pieces):
                feed.output("stdout", b"x" * 65536)
            assert not may_write(pace)
            feed.disown()
            assert may_write(pace)
            for _ in range(2 * pieces):
                feed.output("stdout", b"x" * 65536)
            assert may_write(pace)
            await stranger.aclose()
            await owner.aclose()

    asyncio.run(test())
