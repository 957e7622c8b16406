"""Wrong configurations and wrong question files, drawn with a random number generator."""

from __future__ import annotations

import copy
import datetime
import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[1]
HEADLINE = yaml.safe_load((ROOT / "config.yaml").read_text())


def nested(depth: int) -> dict[str, Any]:
    """So many dictionaries in each other."""
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
        "[" * 3000,
        '{"a":' * 3000,
        "false",
    ),
    *("é" * 1000, "\ud800", "auto", "x.json", "../x", "/etc/passwd", "/", ".", "a b", "$HOME", "[1, 2]", '{"a": 1}'),
    *("0x10", "١٢", "1_000", " 8 ", "8.0", "1e400", b"bytes", datetime.date(2026, 1, 1), complex(1, 2), object()),
    *([], {}, [1], ["1"], [None], [[1]], {"a": 1}, {1: 2}, {None: 1}, {(1, 2): 3}, set(), {1, 2}, range(3)),
    *(CYCLIC, CIRCULAR, nested(2000), {"x": float("nan")}),
]
# Of variables of a chat template.
VARIABLES = [
    "enable_thinking",
    "x",
    "a b",
    "é",
    "",
    "tokenize",
    "messages",
    "bos_token",
    "strftime_now",
    1,
    None,
    "x" * 200,
]
KEYS = ["x", 1, None, True, 2.5, "experimen", "lr", ("a",), "x" * 100_000, "\0", "a\nb"]


def places(value: Any, above: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The path of every value in nested lists and dictionaries."""
    if above:
        yield above
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, own in pairs:
        yield from places(own, (*above, key))


PLACES = list(places(HEADLINE))


def spoilt(generator: random.Random) -> Any:
    """The headline configuration with values, keys or sections that are others, or missing."""
    config = copy.deepcopy(HEADLINE)
    if generator.random() < 0.02:
        return generator.choice(VALUES)
    for _ in range(generator.choice((1, 1, 1, 2, 4))):
        *above, last = generator.choice(PLACES)
        part = config
        if generator.random() < 0.1 and isinstance(config.get("model"), dict):
            named = generator.choices(VARIABLES, k=generator.choice((1, 2, 300)))
            config["model"]["template_arguments"] = {name: generator.choice(VALUES) for name in named}
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


def put(content: Any, path: tuple[Any, ...], value: Any) -> Any:
    """A copy of nested lists and dictionaries with the value at ``path`` replaced, or removed if it is ``...``."""
    changed = copy.deepcopy(content)
    place = changed
    for key in path[:-1]:
        place = place[key]
    if value is ...:
        del place[path[-1]]
    else:
        place[path[-1]] = value
    return changed


# In place of a value of a question file.
JUNK = [..., None, True, 0, -3, 1.5, "", " ", "x", [], {}, [None], [[]], {"data": 1}]
# The same, and texts that only look like any other.
TEXTS = ["\ud83c", "\0", "\ufeff", "<eos>", "a", "北京", "\u2028", "x" * 100_000, " \n", "é" * 300, "{{ x }}", 10**400]


def spoilt_questions(generator: random.Random, content: Any) -> bytes:
    """A question file with values that are others, missing or moved, or with bytes that are."""
    for _ in range(generator.choice((0, 1, 1, 2, 5))):
        found = list(places(content))
        if not found:
            break
        path = generator.choice(found)
        if generator.random() < 0.2:  # one that is elsewhere in the file
            other: Any = content
            for key in generator.choice(found):
                other = other[key]
            content = put(content, path, copy.deepcopy(other))
        else:
            content = put(content, path, generator.choice([*JUNK, *TEXTS]))
    written = bytearray(json.dumps(content, ensure_ascii=generator.random() < 0.5).encode("utf-8", "surrogatepass"))
    match generator.choice(("whole", "whole", "whole", "cut", "byte", "doubled", "marked")):
        case "cut":
            del written[generator.randrange(len(written) + 1) :]
        case "byte" if written:
            written[generator.randrange(len(written))] = generator.randrange(256)
        case "doubled":
            written += bytes(written)
        case "marked":
            written[:0] = generator.choice((b"\xef\xbb\xbf", b"\xff\xfe", b"\n", b"\0"))
    return bytes(written)
