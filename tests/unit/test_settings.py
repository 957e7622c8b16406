"""Every setting once: what is written from the settings is up to date, and says everything about each."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import jsonschema
import pytest
import yaml

from latentwire import cli
from latentwire.arms_table import ALWAYS, ARMS
from latentwire.report.settings_files import CONFIG, REFERENCE, SCHEMA, files
from latentwire.settings import (
    AdapterSettings,
    BaselineArm,
    CodeArm,
    Configuration,
    Data,
    Gate,
    NoiseCodec,
    Phase1,
    Phase2,
    Section,
    section_of,
    takes_none,
)

ROOT = Path(__file__).parents[2]


def sections(section: type[Section] = Configuration) -> Iterator[type[Section]]:
    """The configuration and all its sections."""
    yield section
    for field in section.model_fields.values():
        if (inner := section_of(field.annotation)) is not None:
            yield from sections(inner)


SETTINGS = [(section, name) for section in dict.fromkeys(sections()) for name in section.model_fields]


@pytest.mark.parametrize("path", [CONFIG, SCHEMA, REFERENCE])
def test_the_files_written_from_the_settings_are_up_to_date(path: str):
    assert (ROOT / path).read_text(encoding="utf-8") == files()[path], "run 'make settings'"


def test_config_yaml_is_the_defaults_and_valid_by_the_schema():
    written = yaml.safe_load(files()[CONFIG])
    assert written == Configuration().model_dump()
    schema = yaml.safe_load(files()[SCHEMA])
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(written, schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(written | {"seeds": [0, 0]}, schema)


@pytest.mark.parametrize(("section", "name"), SETTINGS, ids=lambda value: getattr(value, "__name__", value))
def test_every_setting_is_described_and_every_number_bounded(section: type[Section], name: str):
    schema = section.model_json_schema()
    assert schema["additionalProperties"] is False and section.__doc__
    own = schema["properties"][name]
    if "$ref" in own:
        return
    assert own["description"].strip()
    if section.__name__ != "Job":
        assert "default" in own
    for option in (
        own,
        own.get("items", {}),
        *own.get("anyOf", []),
        *(o.get("items", {}) for o in own.get("anyOf", [])),
    ):
        if option.get("type") in ("integer", "number"):
            assert {"minimum", "exclusiveMinimum"} & set(option), "no lower bound"
            assert {"maximum", "exclusiveMaximum"} & set(option), "no upper bound"


def test_the_arms_that_can_be_chosen_are_those_of_the_table_but_for_the_plans_own():
    assert ALWAYS == ("text", "phase1", "phase2", "control")
    chosen = {name for name, row in ARMS.items() if name not in ALWAYS and not row.noise}
    assert set(get_args(BaselineArm)) == chosen
    assert {f"noise_equal_{name}" for name in get_args(NoiseCodec)} < set(ARMS)
    assert set(get_args(CodeArm)) == {name for name in chosen if ARMS[name].codec and ARMS[name].sized}


def test_which_types_take_none():
    assert takes_none(int | None) and takes_none(type(None))
    assert not takes_none(int) and not takes_none(Data.model_fields["seed"].annotation)
    assert takes_none(Data.model_fields["train_samples"].annotation)


def parsed(section: type[Section], *names: str, arguments: tuple[str, ...] = (), **options: Any) -> argparse.Namespace:
    """Arguments as a program with these settings reads them."""
    parser = cli.parser("a program")
    cli.add_settings(parser, section, *names, **options)
    return parser.parse_args(arguments)


def test_flags_have_the_settings_defaults_types_and_bounds(capsys: pytest.CaptureFixture[str]):
    found = parsed(Phase1, *Phase1.model_fields)
    assert {name: getattr(found, name) for name in Phase1.model_fields} == Phase1().model_dump()
    assert parsed(Phase1, "lr", arguments=("--lr", "1e-2")).lr == 0.01
    assert parsed(Phase1, "lr", lr=7e-4).lr == 7e-4
    assert parsed(Phase2, "alpha", arguments=("--alpha", "auto")).alpha == "auto"
    assert parsed(Phase2, "alpha", arguments=("--alpha", "2")).alpha == 2.0
    assert parsed(AdapterSettings, "hidden", arguments=("--hidden", "none")).hidden is None
    assert parsed(Gate, "force_phase2", arguments=("--force_phase2",)).force_phase2 is True
    assert parsed(Data, "revision", prefix="data_", arguments=("--data_revision", "abc")).data_revision == "abc"
    for flag, value, message in (("lr", "0", "greater than 0"), ("epochs", "1.5", "valid integer")):
        with pytest.raises(SystemExit):
            parsed(Phase1, flag, arguments=(f"--{flag}", value))
        assert message in capsys.readouterr().err


def test_help_shows_descriptions_and_the_defaults_of_what_has_one():
    parser = cli.parser("a program")
    cli.add_settings(parser, Phase1, "lr")
    cli.add_settings(parser, AdapterSettings, "hidden")
    parser.add_argument("--output", required=True, help="folder to write")
    text = " ".join(parser.format_help().split())
    assert "Peak learning rate of AdamW. (default: 0.001)" in text
    assert "(default: None)" not in text
