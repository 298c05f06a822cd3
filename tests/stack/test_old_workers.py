"""A worker of the build before ends what it was given, and nothing else: no ticket was in its work, none comes back."""

from __future__ import annotations

import asyncio
from typing import Any

from pipeline.clock import now_ms
from pipeline.events.codec import decode_log, encode
from pipeline.events.records import Decision, Outcome
from tests.admit_site import Writers, completion, until_answered
from tests.stack.completions_site import derived, dropped, send, until_ended
from tests.stack.test_upgrade import as_version_0_1_0


def test_what_was_given_out_before_the_upgrade_ends_without_a_ticket(deployment: Any) -> None:
    async def scene() -> None:
        bootstrap = deployment.bootstrap
        async with Writers(deployment) as writers:
            await writers.produce("acme", ["x", "y", "z", "new"], 1, session="now")
            old = map(decode_log, await as_version_0_1_0(deployment.kafka, writers, now_ms()))
            given = [record for record in old if isinstance(record, Decision)]
            assert [decision.verdict for decision in given] == ["admit"] * 3
            writers.start()
            *_, fresh = [r for r in await until_answered(bootstrap, 4) if isinstance(r, Decision)]
            counts = {"input_tokens": 9, "output_tokens": 4}
            forged = [
                completion(deployment, given[0], ticket=b"", input_tokens=-5),
                completion(deployment, given[0], ticket=b"", input_tokens=10, output_tokens=4),
                completion(deployment, fresh, ticket=b""),
            ]
            reports = [completion(deployment, decision, ticket=b"", **counts) for decision in given]
            await send(writers, [encode(one) for one in (*forged, *reports, completion(deployment, fresh))])
            records = await until_ended(bootstrap, {decision.request for decision in (*given, fresh)})
            reasons = {reason: dropped(writers, reason) for reason in ("counts", "over_reserved", "ticket")}
        outcomes = {record.request: record for record in records if isinstance(record, Outcome)}
        assert [outcomes[decision.request].result for decision in (*given, fresh)] == ["finished"] * 4
        assert [outcomes[decision.request].input_tokens for decision in (*given, fresh)] == [9, 9, 9, 5]
        assert reasons == {"counts": 1, "over_reserved": 1, "ticket": 1}
        await derived(deployment)

    asyncio.run(scene())
