"""The files that are written from the settings: ``config.yaml``, its JSON schema, and the reference in ``docs``."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from typing import Any

import yaml

from latentwire.settings import Configuration, Job, Resources, Section, section_of

CONFIG, SCHEMA, REFERENCE = "config.yaml", "workflow/schemas/config.schema.yaml", "docs/configuration.md"
WIDTH = 118
_BOUNDS = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}


def _untitled(schema: Any) -> Any:
    """A JSON schema without the titles that repeat the keys."""
    if isinstance(schema, dict):
        return {key: _untitled(value) for key, value in schema.items() if key != "title" or not isinstance(value, str)}
    return [_untitled(item) for item in schema] if isinstance(schema, list) else schema


def schema() -> str:
    """The JSON schema, for editors and other tools."""
    made = {"$schema": "https://json-schema.org/draft/2020-12/schema"} | _untitled(Configuration.model_json_schema())
    return "# Written by 'make settings' from src/latentwire/settings.py.\n" + yaml.safe_dump(
        made, sort_keys=False, width=WIDTH, allow_unicode=True
    )


def _own_first(section: type[Section]) -> list[str]:
    """A section's settings, inherited ones last."""
    return sorted(section.model_fields, key=lambda name: name not in section.__annotations__)


def _comment(text: str, indent: str) -> list[str]:
    return textwrap.wrap(text, WIDTH, initial_indent=f"{indent}# ", subsequent_indent=f"{indent}# ")


def _value(value: Any) -> str:
    """A value as YAML flow."""
    if isinstance(value, float):
        value = int(value) if value.is_integer() and value != 1.0 else value
    text = yaml.safe_dump(value, default_flow_style=True, sort_keys=False, width=10**6, allow_unicode=True)
    return text.removesuffix("\n").removesuffix("\n...")


def _yaml_lines(section: Section, indent: str = "") -> Iterator[str]:
    for name in _own_first(type(section)):
        field = type(section).model_fields[name]
        value, own = getattr(section, name), section_of(field.annotation)
        if indent == "" and name != "experiment":
            yield ""
        if own is not None and own.__name__ == "Job":
            yield f"{indent}{name}: {_value(value.model_dump())}  # {field.description}"
        elif own is not None:
            yield from _comment(own.__doc__ or "", indent)
            yield f"{indent}{name}:"
            yield from _yaml_lines(value, indent + "  ")
        else:
            yield from _comment(field.description or "", indent)
            yield f"{indent}{name}: {_value(value)}"


def configuration() -> str:
    """The headline experiment with every setting and what it means."""
    head = [
        "# The headline experiment: Llama-3.1-8B-Instruct, SQuAD, 4096 -> 512 dimensions per token.",
        "# Other experiments are overlays in config/, given with --configfile; docs/configuration.md has the bounds.",
        "# Written by 'make settings'. F1, EM and thresholds are fractions.",
        "",
    ]
    return "\n".join([*head, *_yaml_lines(Configuration())]) + "\n"


def _kind(schema: dict[str, Any]) -> str:
    """The type and bounds of a setting in words."""
    if "anyOf" in schema:
        return " or ".join(_kind(option) for option in schema["anyOf"])
    if "enum" in schema:
        return ", ".join(f"`{value}`" for value in schema["enum"])
    if "const" in schema:
        return f"`{schema['const']}`"
    if schema["type"] == "array":
        return f"list of {_kind(schema['items'])}"
    bounds = [f"{sign} {_value(schema[name])}" for name, sign in _BOUNDS.items() if name in schema]
    return " ".join([schema["type"], ", ".join(bounds)]).strip()


def _table(title: str, text: str, section: type[Section]) -> list[str]:
    """A section's settings that are no sections themselves."""
    lines = ["", f"## {title}", "", text, "", "| setting | type | default | meaning |", "|---|---|---|---|"]
    properties = section.model_json_schema()["properties"]
    for name in _own_first(section):
        own = properties[name]
        if "$ref" in own:
            continue
        default = f"`{_value(own['default'])}`" if "default" in own else "by stage"
        cells = (f"`{name}`", _kind(own), default, own["description"])
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return lines


def reference() -> str:
    """The configuration reference, a table per section."""
    lines = [
        "# Configuration reference",
        "",
        "Written by `make settings` from `src/latentwire/settings.py`. `config.yaml` holds these defaults, which are",
        "the headline experiment; an overlay in `config/` or `--config` names only what it changes.",
    ]
    sections = {name: section_of(field.annotation) for name, field in Configuration.model_fields.items()}
    lines += _table("The experiment", "Settings outside of sections.", Configuration)
    for name, section in sections.items():
        if section is not None:
            lines += _table(f"`{name}`", section.__doc__ or "", section)
    stages = [f"`{name}`" for name, field in Resources.model_fields.items() if field.annotation is Job]
    lines += _table("A stage of `resources`", f"{Job.__doc__} Stages: {', '.join(stages)}.", Job)
    return "\n".join(lines) + "\n"


def files() -> dict[str, str]:
    """The content of each file, by its path from the repository's root."""
    return {CONFIG: configuration(), SCHEMA: schema(), REFERENCE: reference()}
