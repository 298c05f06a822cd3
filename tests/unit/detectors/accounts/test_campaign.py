"""Campaigns: accounts add up under a shared hash, harmless ones do not, and memory is bounded."""

from __future__ import annotations

from detectors.accounts.campaign import (
    FLOOR,
    MAX_MEMBERS,
    MAX_WEIGHT,
    MEMBERS,
    SENSE_FLOOR,
    WEIGHT,
    WINDOW_MS,
    Campaigns,
)
from detectors.accounts.signatures import KIND

SURE = FLOOR + MAX_WEIGHT


def test_enough_sure_accounts_are_a_campaign_and_all_of_them_its_members() -> None:
    campaigns: Campaigns[int] = Campaigns()
    found = [campaigns.report(account, (7,), SURE, account) for account in range(MEMBERS)]
    assert found[:-1] == [None] * (MEMBERS - 1)
    assert found[-1] is not None
    assert found[-1].signature == 7
    assert found[-1].members == {account: (SURE, account, "") for account in range(MEMBERS)}


def test_accounts_below_the_floor_never_add_up_however_many_share_an_instruction() -> None:
    campaigns: Campaigns[int] = Campaigns()
    assert not any(campaigns.report(account, (7,), FLOOR - 1, 0) for account in range(200))
    assert len(campaigns) == 0


def test_one_account_that_reports_often_is_one_account() -> None:
    campaigns: Campaigns[int] = Campaigns()
    assert not any(campaigns.report(1, (7,), SURE, time) for time in range(100))


def test_weak_accounts_need_more_company() -> None:
    campaigns: Campaigns[int] = Campaigns()
    weight = WEIGHT // 10
    found = [campaigns.report(account, (7,), FLOOR + weight, 0) for account in range(10)]
    assert [answer is not None for answer in found] == [False] * 9 + [True]


def test_different_signatures_do_not_mix_and_silent_members_stop_counting() -> None:
    campaigns: Campaigns[int] = Campaigns()
    assert not any(campaigns.report(account, (account,), SURE, 0) for account in range(50))
    campaigns = Campaigns()
    for account in range(MEMBERS - 1):
        campaigns.report(account, (7,), SURE, 0)
    assert campaigns.report(99, (7,), SURE, WINDOW_MS + 1) is None


def test_memory_is_bounded_and_the_oldest_signature_goes_first() -> None:
    campaigns: Campaigns[int] = Campaigns(capacity=10)
    for account in range(MEMBERS - 1):
        campaigns.report(account, (0,), SURE, 0)
    for signature in range(1, 10):
        campaigns.report(0, (signature,), SURE, 0)
    assert campaigns.report(0, (0,), SURE, 0) is None  # refreshed, so signature 1 is the oldest now
    campaigns.report(0, (10,), SURE, 0)
    assert len(campaigns) == 10
    assert campaigns.report(50, (0,), SURE, 0) is not None
    for account in range(3 * MAX_MEMBERS):
        found = campaigns.report(account, (0,), SURE, 0)
    assert found is not None
    assert len(found[1]) == MAX_MEMBERS


def test_the_sense_of_a_request_makes_no_campaign_of_accounts_that_look_harmless_by_themselves() -> None:
    sense, campaigns = KIND.pack(3) | 5, Campaigns[int]()
    assert not any(campaigns.report(account, (sense,), SENSE_FLOOR - 1, 0) for account in range(200))
    assert [campaigns.report(account, (sense,), MAX_WEIGHT, 0) is not None for account in range(MEMBERS)][-1]
