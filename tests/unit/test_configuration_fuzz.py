"""No configuration, however wrong, ends in anything but a short list of what is wrong with it.

``make campaign`` tries more of them.
"""

import random

import pytest
from spoiling import ROOT, spoilt

from latentwire.configuration import ConfigurationError, checked, frozen_hash


@pytest.mark.parametrize("start", range(0, 1500, 500))
def test_a_wrong_configuration_is_a_short_list_of_problems_and_never_a_traceback(start):
    accepted = 0
    for seed in range(start, start + 500):
        try:
            frozen_hash(checked(spoilt(random.Random(seed)), ROOT))
            accepted += 1
        except ConfigurationError as error:
            assert len(str(error)) < 8000, seed
        except Exception as error:
            raise AssertionError(f"configuration {seed}: {type(error).__name__}: {error}") from error
    assert 0 < accepted < 250
