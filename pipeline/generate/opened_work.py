"""Admitted work is opened with the tenant's keys, which may be newer than what this worker has read."""

from __future__ import annotations

from pipeline.clock import now_ms
from pipeline.control.table import ControlTable
from pipeline.errors import Retryable
from pipeline.events.messages import Work
from pipeline.events.wire import Message, decode_messages
from pipeline.keys.vault import NotGranted, UnknownKey, Vault
from pipeline.retry import retry_until


async def opened_messages(table: ControlTable, vault: Vault, work: Work) -> tuple[Message, ...]:
    """Give the messages. A tenant's own worker waits for keys that it is yet to be granted, up to the deadline.

    Raises Malformed, Retryable.
    """
    left_s = max(0.0, (work.deadline - now_ms()) / 1000)
    if work.tenant not in table.control.tenants:
        await retry_until(table.refresh, left_s, "control to be read")
    try:
        return _open(vault, work)
    except UnknownKey:
        # admit has read on, and has opened it: so does this worker
        await retry_until(table.refresh, left_s, "control to be read")
    except NotGranted:
        # the file of granted keys is looked at again each time
        pass

    async def granted() -> tuple[Message, ...]:
        try:
            return _open(vault, work)
        except NotGranted as error:
            raise Retryable(str(error)) from error

    return await retry_until(granted, left_s, f"the keys of {work.tenant}")


def _open(vault: Vault, work: Work) -> tuple[Message, ...]:
    raw = vault.decrypt(work.tenant, "request", "messages", work.client_request, work.sealed, work.wrap)
    # the answer is sealed under the key in use, and watched by its canary
    vault.canary(work.tenant)
    return decode_messages(raw)
