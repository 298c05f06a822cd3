"""Certificate authorities that a producer trusts beside those of the system."""

from __future__ import annotations

import ssl

from pipeline.errors import ConfigError


def authorities(ca_file: str) -> ssl.SSLContext:
    """Give a context that trusts the authorities of a file, too. Raises ConfigError where it holds no certificates."""
    context = ssl.create_default_context()
    try:
        context.load_verify_locations(ca_file)
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(
            f"ca_file: expected a PEM file of certificates, got {ca_file}: {error.strerror or error}"
        ) from None
    return context
