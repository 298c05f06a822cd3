"""Fixtures of all tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import settings

from tests.deployment_site import Deployment, furnished

# a busy machine is no fault of what is tested
settings.register_profile("sluice", deadline=None)
settings.load_profile("sluice")


@pytest.fixture(scope="module")
def deployment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    """One partition on a broker of the module's own."""
    with furnished(tmp_path_factory.mktemp("deployment"), 1) as found:
        yield found
