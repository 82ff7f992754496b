"""How much Hypothesis tries: the same few hundred cases in CI, many new ones by `make chaos`."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

from tests.support.chaos import ALL

COMMON = {
    "deadline": None,
    "database": None,
    "print_blob": True,
    "suppress_health_check": [
        HealthCheck.function_scoped_fixture,
        HealthCheck.too_slow,
        HealthCheck.data_too_large,
    ],
}

settings.register_profile("ci", derandomize=True, **COMMON)
settings.register_profile("chaos", derandomize=False, **COMMON)
settings.load_profile("chaos" if ALL else "ci")
