"""Puts stages and adapters together. Only this package knows concrete adapters.

They raise ConfigError, Retryable (a dependency was absent for a minute) or Fatal; ``cli`` turns those into exit codes.
"""

from pipeline.wiring.operate import (
    apply_tables,
    apply_topics,
    check_broker,
    check_tables,
    check_topics,
    follow_pools,
    forward_model_acts,
    grant,
    log_keys,
    model_trust,
    models,
    registry,
    store,
    vault,
    verify,
)
from pipeline.wiring.shared import patiently
from pipeline.wiring.stages import STAGES, Assign, Stage, admit, gateway, generate, notify, seal, watch

__all__ = [
    "STAGES",
    "Assign",
    "Stage",
    "admit",
    "apply_tables",
    "apply_topics",
    "check_broker",
    "check_tables",
    "check_topics",
    "follow_pools",
    "forward_model_acts",
    "gateway",
    "generate",
    "grant",
    "log_keys",
    "model_trust",
    "models",
    "notify",
    "patiently",
    "registry",
    "seal",
    "store",
    "vault",
    "verify",
    "watch",
]
