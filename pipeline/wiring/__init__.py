"""Puts stages and adapters together. Only this package knows concrete adapters.

They raise ConfigError, Retryable (a dependency was absent for a minute) or Fatal; ``cli`` turns those into exit codes.

A name is imported when it is first asked for (PEP 562): a stage then starts without what operators' commands need, in
half the CPU time.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
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
_STAGES = frozenset({"STAGES", "Assign", "Stage", "admit", "gateway", "generate", "notify", "seal", "watch"})


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = "stages" if name in _STAGES else "shared" if name == "patiently" else "operate"
    return getattr(importlib.import_module(f"{__name__}.{module}"), name)
