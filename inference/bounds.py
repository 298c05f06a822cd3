"""Bounds of a request: every field has one, checked before anything is computed. No torch."""

from __future__ import annotations

from inference.types import ROLES, GenerationRequest, InvalidRequest, SamplingParams

MAX_WEIGHT = 10_000


MAX_TURNS = 256
MAX_STOPS = 8
MAX_STOP_BYTES = 256
MAX_ID_BYTES = 256
MAX_SEED = 2**64 - 1
MAX_BIASES = 64
MAX_BIAS = 100.0
MAX_LOGPROBS = 5
MAX_DEADLINE_S = 86_400.0
_RANGES = {
    "temperature": (0.0, 100.0),
    "min_p": (0.0, 1.0),
    "repetition_penalty": (0.1, 10.0),
    "presence_penalty": (-2.0, 2.0),
    "frequency_penalty": (-2.0, 2.0),
}


def check_request(request: GenerationRequest) -> None:
    """Raise ``InvalidRequest`` unless every field is within its bounds (context length aside)."""
    _require_bytes("request_id", request.request_id, 1, MAX_ID_BYTES)
    _require_bytes("tenant", request.tenant, 0, MAX_ID_BYTES)
    if not 1 <= len(request.turns) <= MAX_TURNS:
        raise InvalidRequest(f"turns: expected 1 to {MAX_TURNS}, got {len(request.turns)}")
    for index, turn in enumerate(request.turns):
        if turn.role not in ROLES:
            raise InvalidRequest(f"turns[{index}].role: expected one of {', '.join(ROLES)}, got another")
        _require_bytes(f"turns[{index}].text", turn.text, 0, None)
    if request.max_tokens < 1:
        raise InvalidRequest(f"max_tokens: expected at least 1, got {request.max_tokens}")
    _require_bytes("adapter", request.adapter, 0, MAX_ID_BYTES)
    _check_service(request)
    _check_sampling(request.sampling)


def check_ids(request: GenerationRequest, prompt: list[int], vocabulary: int) -> None:
    """Raise ``InvalidRequest`` for an empty prompt or token ids outside ``0 .. vocabulary``."""
    if not prompt:
        raise InvalidRequest("turns: expected at least one token, got none")
    if not (min(prompt) >= 0 and max(prompt) < vocabulary):
        raise InvalidRequest(f"turns: expected token ids below {vocabulary}, got others")
    if any(not 0 <= token < vocabulary for token, _ in request.sampling.logit_bias):
        raise InvalidRequest(f"logit_bias: expected token ids below {vocabulary}, got others")


def _check_service(request: GenerationRequest) -> None:
    if not 1 <= request.weight <= MAX_WEIGHT:
        raise InvalidRequest(f"weight: expected 1 to {MAX_WEIGHT}, got {request.weight}")
    _require_range("risk", request.risk, 0.0, 1.0)
    if request.deadline_s is not None:
        _require_range("deadline_s", request.deadline_s, 0.0, MAX_DEADLINE_S)


def _check_sampling(sampling: SamplingParams) -> None:
    for name, (low, high) in _RANGES.items():
        _require_range(name, getattr(sampling, name), low, high)
    # written so that NaN fails the comparison
    if not 0.0 < sampling.top_p <= 1.0:
        raise InvalidRequest(f"top_p: expected above 0 and at most 1, got {sampling.top_p}")
    if sampling.top_k < 0:
        raise InvalidRequest(f"top_k: expected 0 (no limit) or more, got {sampling.top_k}")
    if sampling.seed is not None and not 0 <= sampling.seed <= MAX_SEED:
        raise InvalidRequest(f"seed: expected 0 to {MAX_SEED}, got {sampling.seed}")
    if len(sampling.stop) > MAX_STOPS:
        raise InvalidRequest(f"stop: expected at most {MAX_STOPS} strings, got {len(sampling.stop)}")
    for index, stop in enumerate(sampling.stop):
        _require_bytes(f"stop[{index}]", stop, 1, MAX_STOP_BYTES)
    _check_readout(sampling)


def _check_readout(sampling: SamplingParams) -> None:
    if sampling.json_mode:
        raise InvalidRequest("json_mode: this engine cannot promise JSON; ask in the prompt and check the answer")
    if not 0 <= sampling.logprobs <= MAX_LOGPROBS:
        raise InvalidRequest(f"logprobs: expected 0 to {MAX_LOGPROBS}, got {sampling.logprobs}")
    if len(sampling.logit_bias) > MAX_BIASES:
        raise InvalidRequest(f"logit_bias: expected at most {MAX_BIASES} tokens, got {len(sampling.logit_bias)}")
    for _, bias in sampling.logit_bias:
        _require_range("logit_bias", bias, -MAX_BIAS, MAX_BIAS)
    if sampling.logprobs and sampling.logit_bias:
        raise InvalidRequest("logprobs: not together with logit_bias, which would read out the model")


def _require_range(name: str, value: float, low: float, high: float) -> None:
    # written so that NaN fails the comparison
    if not low <= value <= high:
        raise InvalidRequest(f"{name}: expected {low:g} to {high:g}, got {value}")


def _require_bytes(name: str, text: str, low: int, high: int | None) -> None:
    try:
        size = len(text.encode())
    except UnicodeEncodeError:
        raise InvalidRequest(f"{name}: expected valid Unicode, got a lone surrogate") from None
    if size < low or (high is not None and size > high):
        bound = f"{low} to {high}" if high is not None else f"at least {low}"
        raise InvalidRequest(f"{name}: expected {bound} bytes, got {size}")
