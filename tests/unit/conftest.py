"""The pure core: no database, no environment, no folder of its own for each test."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def clean_environment() -> None:
    """The pure core looks at no environment; the tests that give it one clean up themselves."""
