"""WATCH looks across accounts as well: many of them may share one harvest, of any tenant.

An account that looks at least a little suspicious is reported by admit under the hashes of the wording that it keeps
using, each on the partition of the hash, so accounts of all organisations meet. Every tenant with accounts in a
campaign gets an alert of its own, which names its own requests alone; ``campaign`` is the same in all of them.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from typing import NamedTuple

from detectors.accounts.campaign import Campaign, Campaigns
from detectors.base import HIGH
from pipeline.events.messages import Alert, FindingEvent
from pipeline.watch.alert_ids import alert_id, bucket_of

RULE = "campaign"
TITLE = "accounts that together look like the copying of a model share a rare wording"
WINDOW_MS = 6 * 3_600_000
"""Campaigns are slow: within an hour or two every fifth one of the developer pack is missed, within six none."""
BUCKET_MS = 3_600_000
"""A campaign that goes on raises one alert per tenant in each bucket."""
MAX_SIGNATURES = 16_384
MAX_FIRED = 65_536
MAX_REQUESTS = 20


class CampaignMember(NamedTuple):
    """One account takes part in a campaign."""

    organisation: str
    tenant: str
    principal: str


@dataclass(slots=True)
class CampaignState:
    """One partition's watch remembers wordings, and the last bucket of each wording's alerts by tenant."""

    campaigns: Campaigns[CampaignMember] = field(default_factory=lambda: Campaigns(MAX_SIGNATURES, WINDOW_MS))
    fired: OrderedDict[tuple[int, str], int] = field(default_factory=OrderedDict)


def correlate(state: CampaignState, event: FindingEvent) -> list[Alert]:
    """Fold in a wording that an account keeps using, and give the alerts that it raises, by tenant."""
    sender = CampaignMember(event.organisation, event.tenant, event.principal)
    campaign = state.campaigns.report(sender, (event.signature,), event.score, event.time, event.request)
    if campaign is None:
        return []
    bucket, alerts = bucket_of(event.time, BUCKET_MS), []
    for organisation, tenant in sorted({member[:2] for member in campaign.members}):
        if state.fired.get((campaign.signature, tenant), -1) >= bucket:
            continue
        state.fired[campaign.signature, tenant] = bucket
        state.fired.move_to_end((campaign.signature, tenant))
        if len(state.fired) > MAX_FIRED:
            state.fired.popitem(last=False)
        alerts.append(_alert(campaign, organisation, tenant, event.time))
    return alerts


def _alert(campaign: Campaign[CampaignMember], organisation: str, tenant: str, time: int) -> Alert:
    mine = sorted((m.time, m.request) for sender, m in campaign.members.items() if sender.tenant == tenant)
    name = f"{campaign.signature:016x}"
    return Alert(
        alert=alert_id(RULE, tenant, name, bucket_of(time, BUCKET_MS)),
        time=time,
        rule=RULE,
        severity=HIGH,
        organisation=organisation,
        tenant=tenant,
        principal="",
        title=TITLE,
        count=len(campaign.members),
        first_time=mine[0][0],
        requests=tuple(request for _, request in mine)[:MAX_REQUESTS],
        campaign=name,
    )
