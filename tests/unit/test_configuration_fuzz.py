"""No configuration, however wrong, ends in anything but a short list of what is wrong with it.

``FUZZ`` is the number of configurations (default 1,500), ``FUZZ_SEED`` where they begin: for longer campaigns.
"""

import copy
import datetime
import os
import random
from pathlib import Path

import pytest
import yaml

from latentwire.configuration import ConfigurationError, checked, frozen_hash

ROOT = Path(__file__).parents[2]
HEADLINE = yaml.safe_load((ROOT / "config.yaml").read_text())
NUMBER, SEED = int(os.environ.get("FUZZ", 1500)), int(os.environ.get("FUZZ_SEED", 0))


def nested(depth):
    found = {}
    for _ in range(depth):
        found = {"x": found}
    return found


CYCLIC, CIRCULAR = {}, []
CYCLIC["a"] = CYCLIC
CIRCULAR.append(CIRCULAR)
VALUES = [
    *(None, True, False, 0, -1, 1, 2.0, 2.5, 1e308, float("nan"), float("inf"), 10**400, -(10**30)),
    *(
        "",
        "  ",
        "x",
        "1",
        "1e3",
        "none",
        "nan",
        "~",
        "~/x",
        "{name}",
        "-x",
        "--help",
        "a\nb",
        "a\n",
        "\0",
        "x" * 200_000,
    ),
    *("é" * 1000, "\ud800", "auto", "x.json", "../x", "/etc/passwd", "/", ".", "a b", "$HOME", "[1, 2]", '{"a": 1}'),
    *("0x10", "١٢", "1_000", " 8 ", "8.0", "1e400", b"bytes", datetime.date(2026, 1, 1), complex(1, 2), object()),
    *([], {}, [1], ["1"], [None], [[1]], {"a": 1}, {1: 2}, {None: 1}, {(1, 2): 3}, set(), {1, 2}, range(3)),
    *(CYCLIC, CIRCULAR, nested(2000), {"x": float("nan")}),
]
KEYS = ["x", 1, None, True, 2.5, "experimen", "lr", ("a",), "x" * 100_000, "\0", "a\nb"]


def places(value, above=()):
    if above:
        yield above
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, own in pairs:
        yield from places(own, (*above, key))


PLACES = list(places(HEADLINE))


def spoilt(generator):
    """The headline configuration with values, keys or sections that are others, or missing."""
    config = copy.deepcopy(HEADLINE)
    if generator.random() < 0.02:
        return generator.choice(VALUES)
    for _ in range(generator.choice((1, 1, 1, 2, 4))):
        *above, last = generator.choice(PLACES)
        part = config
        try:
            for key in above:
                part = part[key]
            match generator.choice(("value", "value", "value", "key", "missing")):
                case "value":
                    part[last] = generator.choice(VALUES)
                case "key":
                    part[generator.choice(KEYS)] = generator.choice(VALUES)
                case "missing":
                    part.pop(last)
        except (AttributeError, TypeError, KeyError, IndexError):  # another change has taken the place away
            continue
    return config


@pytest.mark.parametrize("start", range(SEED, SEED + NUMBER, 500))
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
