"""Completions that no worker may send, on a real broker: they change nothing, are counted, and leave a dead letter."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import msgspec

from pipeline.admit.completions import Tickets
from pipeline.events.codec import decode, encode
from pipeline.events.messages import DeadLetter, Work
from pipeline.events.records import Decision, Outcome
from tests.admit_site import Writers, completion, history, read, until_answered
from tests.stack.completions_site import derived, dropped, send, until_dropped, until_ended


def forgeries(deployment: Any, first: Decision, second: Decision) -> list[tuple[str, bytes]]:
    """What must not end the first request, each with the reason that is counted."""
    facts, other = first.facts, Tickets((b"another key",))
    forged: list[tuple[str, dict[str, Any]]] = [
        ("counts", {"input_tokens": -1_000_000}),
        ("counts", {"output_tokens": -1}),
        ("counts", {"first_token_ms": -1}),
        ("counts", {"first_token_ms": 2**40}),
        ("over_reserved", {"input_tokens": facts.input_bound + 1}),
        ("over_reserved", {"output_tokens": facts.max_tokens + 1}),
        ("tenant", {"tenant": "globex"}),
        ("tenant", {"organisation": "globex"}),
        ("ticket", {"ticket": b""}),
        ("ticket", {"ticket": completion(deployment, second).ticket}),
        ("ticket", {"ticket": other.ticket(first.request)}),
    ]
    made = [(reason, encode(completion(deployment, first, **fields))) for reason, fields in forged]
    return [*made, ("malformed", b"{"), ("malformed", b'{"request":"' + first.request.encode() + b'"}')]


def test_a_forged_completion_ends_nothing_and_the_true_one_still_counts(deployment: Any) -> None:
    async def scene() -> None:
        async with Writers(deployment) as writers:
            worker = writers.start()
            await writers.produce("acme", ["true", "never"], 1, session="forged", timeout_ms=2_000)
            await writers.produce("acme", ["other"], 3, session="forged")
            first, lost, other = [r for r in await until_answered(deployment.bootstrap, 3) if isinstance(r, Decision)]
            forged = forgeries(deployment, first, other)
            await send(writers, [value for _, value in forged] + [encode(completion(deployment, lost, ticket=b""))])
            await until_dropped(writers, "malformed", 2)
            assert not any(isinstance(record, Outcome) for record in await history(deployment.bootstrap))
            true = encode(completion(deployment, first))
            await send(writers, [true, encode(completion(deployment, other)), true])
            records = await until_ended(deployment.bootstrap, {first.request, lost.request, other.request})
            await until_dropped(writers, "ended", 1)
            await worker._acted_on()
        outcomes = {r.request: r for r in records if isinstance(r, Outcome)}
        assert [outcomes[d.request].result for d in (first, lost, other)] == ["finished", "expired", "finished"]
        ended = outcomes[first.request]
        assert (ended.input_tokens, ended.output_tokens, len(outcomes)) == (5, 7, 3)
        assert sum(isinstance(r, Outcome) for r in records) == 3
        reasons = Counter([reason for reason, _ in forged] + ["ticket"])
        assert {reason: dropped(writers, reason) for reason in reasons} == reasons
        letters = [decode(DeadLetter, item.value) for item in await read(deployment.bootstrap, "dead_letters")]
        traced = Counter[str]()
        for one in letters:
            # a run of one reason leaves one
            traced[one.reason] += 1 if one.first < 0 else one.offset + 1 - one.first
        assert traced == reasons
        await derived(deployment)

    asyncio.run(scene())


def test_work_bears_a_ticket_that_only_admit_can_make(deployment: Any) -> None:
    async def scene() -> None:
        tickets = Tickets(deployment.vault.ticket_keys())
        work = [decode(Work, item.value) for item in await read(deployment.bootstrap, "work")]
        assert len(work) == 3
        assert all(tickets.genuine(one.request, one.ticket) for one in work)
        assert len({one.ticket for one in work}) == 3
        assert not tickets.genuine(work[0].request, work[1].ticket)
        assert msgspec.structs.replace(work[0], ticket=b"") != work[0]

    asyncio.run(scene())
