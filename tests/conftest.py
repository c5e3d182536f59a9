"""Fixtures that every test may use."""

import pytest
from hypothesis import settings

from app import bundle as bundles
from app.bundle import Bundle
from app.settings import PROJECT, Settings

# On a busy machine anything may take long: no test is to fail for that.
settings.register_profile("without_deadline", deadline=None)
settings.load_profile("without_deadline")


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="session")
def shipped_bundle() -> Bundle:
    """The model version that is served by default, whatever its name, number and breeds."""
    return bundles.load(PROJECT / Settings.model_fields["model"].default)


@pytest.fixture(scope="session")
def lite_bundle() -> Bundle:
    """The smaller model version that lies beside the default one."""
    default = PROJECT / Settings.model_fields["model"].default
    return bundles.load(default.with_name(f"{default.name}-lite"))
