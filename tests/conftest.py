"""Settings that hold for all tests."""

from hypothesis import HealthCheck, settings

# Whole scenarios are drawn: an example is slow, and its time says nothing.
settings.register_profile("greend", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("greend")
