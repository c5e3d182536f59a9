"""Fixtures that every test may use."""

import pytest
from hypothesis import settings

# On a busy machine anything may take long: no test is to fail for that.
settings.register_profile("without_deadline", deadline=None)
settings.load_profile("without_deadline")


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"
