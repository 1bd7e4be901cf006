"""What holds for every test: examples of hypothesis are drawn from a fixed seed and are not timed."""

import os

from hypothesis import HealthCheck, settings

FULL = "POSTILLION_FAULTS" in os.environ
"""The full form of the crash proofs draws new examples each time, too; hypothesis prints the one that fails."""

settings.register_profile(
    "postillion", derandomize=not FULL, deadline=None, suppress_health_check=[HealthCheck.too_slow], print_blob=True
)
settings.load_profile("postillion")
