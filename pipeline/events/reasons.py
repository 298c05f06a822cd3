"""Every reason for a refusal has an HTTP status, an OpenAI error type, and a message to the caller."""

from __future__ import annotations

from typing import NamedTuple


class Reason(NamedTuple):
    """A caller is refused so."""

    status: int
    type: str
    message: str
    """Says what was expected and what to do. Holds no content of the request."""


REASONS: dict[str, Reason] = {
    "malformed": Reason(
        400,
        "invalid_request_error",
        "The record could not be read. Send the JSON and headers of the wire document.",
    ),
    "unreadable_batch": Reason(
        400,
        "invalid_request_error",
        "The batch of records does not unpack, or to more than 8 MiB or 32,768 records. Send smaller batches, "
        "compressed with gzip, snappy, lz4 or zstd, or not at all.",
    ),
    "misrouted": Reason(
        400,
        "invalid_request_error",
        "The record is on a partition that is not its organisation's. "
        "Key records by organisation and use the murmur2 partitioner.",
    ),
    "unsigned": Reason(
        401,
        "authentication_error",
        "The signature does not match. Sign the exact bytes with the key's secret.",
    ),
    "unknown_key": Reason(401, "authentication_error", "No such key. Ask your operator for one (sluice key add)."),
    "revoked_key": Reason(401, "authentication_error", "The key was revoked. Use another key."),
    "expired_key": Reason(401, "authentication_error", "The key has expired. Use another key."),
    "suspended": Reason(403, "permission_error", "The tenant is suspended. Ask your operator."),
    "clock_skew": Reason(
        401,
        "authentication_error",
        "The signed time is more than 60 s from the broker's. Set the clock, then send again.",
    ),
    "replayed": Reason(
        409,
        "invalid_request_error",
        "This session counter was used before. Count up by one for each record of a session.",
    ),
    "too_many_sessions": Reason(
        429,
        "rate_limit_error",
        "The key was used in 1,000 sessions within four minutes. Keep one session for each process, and go on in one.",
    ),
    "duplicate": Reason(
        409,
        "invalid_request_error",
        "A request with this idempotency key exists. Its answer stands; this one was not run.",
    ),
    "undecryptable": Reason(
        400,
        "invalid_request_error",
        "The sealed text does not open. Seal it under the tenant's current key, bound to this request.",
    ),
    "unknown_model": Reason(404, "invalid_request_error", "No such model. GET /v1/models lists those that exist."),
    "model_not_allowed": Reason(
        403,
        "permission_error",
        "The tenant's plan does not include this model. GET /v1/models lists those that it does.",
    ),
    "max_tokens_exceeded": Reason(
        400,
        "invalid_request_error",
        "max_tokens is above what the plan or the model allows. Ask for fewer: GET /v1/wire tells the plan's most.",
    ),
    "logprobs_not_allowed": Reason(
        403,
        "permission_error",
        "The tenant's plan tells fewer log-probabilities, or none. Ask for at most its top_logprobs, for 4,096 tokens "
        "or fewer, and not together with logit_bias.",
    ),
    "logit_bias_not_allowed": Reason(
        403, "permission_error", "The tenant's plan does not include logit_bias. Leave it out."
    ),
    "input_too_long": Reason(
        413,
        "invalid_request_error",
        "The prompt is longer than the plan or the model's context allows. Send less text: GET /v1/wire tells the "
        "plan's most.",
    ),
    "deadline_passed": Reason(
        408,
        "timeout_error",
        "The deadline had passed before the request could be decided. Send it again.",
    ),
    "rate_limited": Reason(429, "rate_limit_error", "Too fast. Retry after the time given."),
    "budget_exhausted": Reason(
        429,
        "insufficient_quota",
        "The budget of this period is used up. Retry when the next period starts.",
    ),
    "too_many_open": Reason(429, "rate_limit_error", "Too many requests are open at once. Wait for one to end."),
    "busy": Reason(503, "overloaded_error", "The service is at capacity. Retry after the time given."),
    "injection": Reason(403, "content_policy_violation", "The prompt was withheld by the tenant's injection policy."),
    "extraction": Reason(
        403,
        "content_policy_violation",
        "The account's requests amount to the copying of a model. Stop them for the time given, or ask your operator.",
    ),
    "throttled": Reason(
        429,
        "rate_limit_error",
        "The account's requests look like the copying of a model, so fewer are served. Retry after the time given, or "
        "ask your operator to clear the account (sluice account clear).",
    ),
    "unscreened": Reason(
        503,
        "overloaded_error",
        "The prompt could not be screened. Send less text, or try again later.",
    ),
    "no_such_request": Reason(
        404,
        "invalid_request_error",
        "Nothing to cancel: no open request of this principal has that id.",
    ),
    "expired": Reason(504, "timeout_error", "No answer by the deadline. Nothing was charged."),
    "failed": Reason(500, "api_error", "The model failed on this request. Nothing was charged."),
    "withheld": Reason(403, "content_policy_violation", "The answer was withheld by the output policy."),
    "cancelled": Reason(499, "invalid_request_error", "The request was cancelled."),
}

LIMIT_REASONS = {
    "rate": "rate_limited",
    "window": "rate_limited",
    "budget": "budget_exhausted",
    "open": "too_many_open",
}
"""The reason that a limit of each meter gives."""
