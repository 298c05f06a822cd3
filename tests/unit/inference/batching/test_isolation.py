"""Between tenants of one worker: what one has asked changes nothing about the work done for another."""

from __future__ import annotations

import dataclasses

import pytest

from inference.batching.batch import Batch
from inference.batching.sequence import Sequence
from inference.types import Chunk, GenerationRequest
from tests.unit.inference.batching.batches import finish, make_batch
from tests.unit.inference.doubles import HashForward, request

SECRET = "the merger closes on friday at nine, tell nobody about it before then"
RIGHT, WRONG = SECRET[:60] + " when?", "x" + SECRET[1:60] + " when?"


def serve(batch: Batch, forward: HashForward, asked: GenerationRequest) -> tuple[list[Chunk], int, int]:
    """An answer, the tokens computed for it and the steps it took: what a stop-watch could see, without one."""
    before, steps = forward.computed, batch.stats().steps
    lineage = forward.lineage(asked.tenant, asked.adapter)
    assert batch.join(Sequence(asked, forward.encode(asked.turns), lineage)) is None
    answers: dict[str, list[Chunk]] = {}
    finish(batch, answers)
    return answers[asked.request_id], forward.computed - before, batch.stats().steps - steps


def after_the_victim(probe: GenerationRequest, *, reuse: bool = True) -> tuple[list[Chunk], int, int]:
    forward = HashForward(budget=8)
    batch = make_batch(forward, reuse=reuse)
    serve(batch, forward, request("victim", SECRET, tenant="victim", limit=4))
    found = serve(batch, forward, probe)
    assert forward.faults == []
    return found


def test_a_right_guess_of_another_tenants_prompt_costs_what_a_wrong_one_does() -> None:
    right, wrong = (after_the_victim(request("probe", text, tenant="spy", limit=1)) for text in (RIGHT, WRONG))
    assert right[1:] == wrong[1:]


def test_the_own_prefix_is_found_again_and_saves_five_times_the_work() -> None:
    own = after_the_victim(request("again", RIGHT, tenant="victim", limit=1))
    without = after_the_victim(request("again", RIGHT, tenant="victim", limit=1), reuse=False)
    assert own[0] == without[0], "the text is the same, found or computed"
    assert without[1] >= 5 * own[1]


def test_an_adapter_of_the_tenant_has_prefixes_of_its_own() -> None:
    asked = dataclasses.replace(request("tuned", RIGHT, tenant="victim", limit=1), adapter="tuned")
    assert after_the_victim(asked)[1] == len(RIGHT)


def test_who_goes_next_does_not_depend_on_what_another_has_cached() -> None:
    orders = []
    for text in (RIGHT, WRONG):
        forward = HashForward(slots=1, budget=8)
        batch = make_batch(forward)
        serve(batch, forward, request("victim", SECRET, tenant="victim", limit=4))
        for name, tenant, words in [("other", "third", "y" * len(text)), ("probe", "spy", text)]:
            asked = request(name, words, tenant=tenant, limit=2)
            batch.join(Sequence(asked, forward.encode(asked.turns)))
        ended = []
        while batch.stats().running or batch.stats().waiting:
            ended += [(chunk.request_id, batch.stats().steps) for chunk in batch.step() if chunk.finish]
        orders.append(ended)
    assert orders[0] == orders[1]


def test_a_conversation_finds_its_own_earlier_turns() -> None:
    forward = HashForward(budget=8, ends=False)
    batch = make_batch(forward)
    chunks, _, _ = serve(batch, forward, request("first", "hello there", limit=20))
    said = "hello there" + "".join(chunk.text for chunk in chunks)
    _, computed, _ = serve(batch, forward, request("second", said + " and then?", limit=1))
    assert computed <= len(" and then?") + 4


def test_a_prefix_that_failed_is_not_offered_again() -> None:
    forward = HashForward(budget=8)
    batch = make_batch(forward)
    serve(batch, forward, request("bad", "nan " + SECRET, limit=1))
    assert batch.stats().blocks_held == 0
    assert all(cell is None for block in forward.cache for cell in block)


@pytest.mark.parametrize("tenant", ["a", "b"])
def test_equal_ids_and_seeds_give_equal_text_whatever_was_cached(tenant: str) -> None:
    plain = after_the_victim(request("r", RIGHT, tenant=tenant, limit=9), reuse=False)[0]
    assert after_the_victim(request("r", RIGHT, tenant=tenant, limit=9))[0] == plain
