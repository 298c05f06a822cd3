"""Puts stages and adapters together. Only this package knows concrete adapters.

They raise ConfigError, Retryable (a dependency was absent for a minute) or Fatal; ``cli`` turns those into exit codes.

A name is imported when it is first asked for (PEP 562): a stage then starts without what operators' commands need, in
half the CPU time.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipeline.admit.service import admit
    from pipeline.control.connect import control_table
    from pipeline.gateway.service import gateway
    from pipeline.generate.service import generate
    from pipeline.kafka.membership import Assign
    from pipeline.notify.service import notify
    from pipeline.seal.service import seal
    from pipeline.watch.service import watch
    from pipeline.wiring.backup import folded, make_backup, restore_control, restore_keys
    from pipeline.wiring.keys import (
        drop_keyring,
        forget_secret,
        prepare_secret,
        rewrap_secrets,
        rotate_keyring,
        rotate_log,
        rotate_secret,
        rotate_webhook,
    )
    from pipeline.wiring.operate import (
        apply_accounts,
        apply_rights,
        apply_tables,
        apply_topics,
        apply_users,
        check_accounts,
        check_broker,
        check_rights,
        check_tables,
        check_topics,
        follow_pools,
        forward_model_acts,
        grant,
        log_keys,
        model_trust,
        models,
        prepare,
        registry,
        store,
        vault,
        verify,
    )
    from pipeline.wiring.producers import add_producer_key, revoke_key, settle_producers
    from pipeline.wiring.quota import explain_decision, left_of_limits, replay_ledgers
    from pipeline.wiring.stages import STAGES

__all__ = [
    "STAGES",
    "Assign",
    "add_producer_key",
    "admit",
    "apply_accounts",
    "apply_rights",
    "apply_tables",
    "apply_topics",
    "apply_users",
    "check_accounts",
    "check_broker",
    "check_rights",
    "check_tables",
    "check_topics",
    "control_table",
    "drop_keyring",
    "explain_decision",
    "folded",
    "follow_pools",
    "forget_secret",
    "forward_model_acts",
    "gateway",
    "generate",
    "grant",
    "left_of_limits",
    "log_keys",
    "make_backup",
    "model_trust",
    "models",
    "notify",
    "prepare",
    "prepare_secret",
    "registry",
    "replay_ledgers",
    "restore_control",
    "restore_keys",
    "revoke_key",
    "rewrap_secrets",
    "rotate_keyring",
    "rotate_log",
    "rotate_secret",
    "rotate_webhook",
    "seal",
    "settle_producers",
    "store",
    "vault",
    "verify",
    "watch",
]
_HOMES = {
    **dict.fromkeys(("folded", "make_backup", "restore_control", "restore_keys"), "pipeline.wiring.backup"),
    "STAGES": "pipeline.wiring.stages",
    "Assign": "pipeline.kafka.membership",
    "control_table": "pipeline.control.connect",
    **dict.fromkeys(("add_producer_key", "revoke_key", "settle_producers"), "pipeline.wiring.producers"),
    **dict.fromkeys(
        (
            "drop_keyring",
            "forget_secret",
            "prepare_secret",
            "rewrap_secrets",
            "rotate_keyring",
            "rotate_log",
            "rotate_secret",
            "rotate_webhook",
        ),
        "pipeline.wiring.keys",
    ),
    **dict.fromkeys(("explain_decision", "left_of_limits", "replay_ledgers"), "pipeline.wiring.quota"),
    **{stage: f"pipeline.{stage}.service" for stage in ("admit", "gateway", "generate", "notify", "seal", "watch")},
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES.get(name, "pipeline.wiring.operate")), name)
