"""How many inputs the generated attacks try: the same few in every run, or many others where FUZZ_EXAMPLES says so."""

import os

from hypothesis import HealthCheck, settings

ASKED = os.environ.get("FUZZ_EXAMPLES")


def generated(few: int) -> settings:
    """hypothesis's settings: `few` examples, the same in every run, or as many as FUZZ_EXAMPLES asks for."""
    return settings(
        max_examples=int(ASKED or few),
        derandomize=ASKED is None,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
