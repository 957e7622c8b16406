"""What others reported of neighbouring projects: inputs of the same kinds, each with its right value as a test."""

from __future__ import annotations

import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from pathlib import Path

from experiment import Experiment
from ledger import Turn
from workspace import ROOT

GENERATE, SCORES = "unit/evaluation/test_generate.py", "unit/evaluation/test_scores.py"
PROMPTS, SQUAD = "unit/data/test_prompts.py", "unit/data/test_squad.py"
MODELS, LM, ABILITIES = "unit/test_reported_models.py", "unit/test_lm.py", "unit/test_abilities.py"
# Kinds of reports, each with files of tests and the tests in them.
REPORTS: dict[str, dict[str, tuple[str, ...]]] = {
    "where an answer ends: an end of turn that neither tokenizer nor generation configuration names, ordinary added tokens, "
    "several turns, line ends of every kind": {
        GENERATE: (
            "test_the_token_with_which_the_template_ends_a_turn_ends_an_answer",
            "test_an_end_of_turn_may_be_an_ordinary_added_token",
            "test_an_answer_is_cut_at_the_first_control_token",
            "test_a_line_ends_as_any_script_or_system_ends_it",
        ),
    },
    "what is no answer: thinking tags, fences, lead-ins; template arguments that turn thinking off": {
        SCORES: (
            "test_answers_that_are_wrapped_in_what_is_no_answer_are_told",
            "test_what_stands_for_the_answer_is_its_first_line_and_counted_if_it_is_none",
        ),
        PROMPTS: ("test_a_templates_variables_are_set_and_those_that_it_lacks_are_refused",),
    },
    "templates that refuse a system message, raise, or print today's date": {
        PROMPTS: (
            "test_a_template_that_raises_says_what_to_do",
            "test_a_template_that_prints_the_date_prints_one_for_ever",
        ),
    },
    "control tokens written in a text, in any normal form": {
        PROMPTS: (
            "test_the_name_of_a_control_token_in_a_text_stays_text",
            "test_no_text_becomes_a_control_token_by_its_normal_form",
        ),
    },
    "a tokenizer that adds an end behind a plain prompt; a padding token without a row, or none": {
        PROMPTS: ("test_a_plain_prompt_ends_with_its_cue",),
        GENERATE: ("test_a_padding_token_without_a_row_costs_nothing",),
        MODELS: ("test_a_padding_token_without_a_row_or_none_at_all_serves",),
        "unit/compression/test_counts.py": ("test_an_id_outside_the_table_is_named",),
    },
    "logits or weights that are not finite": {
        GENERATE: ("test_logits_that_are_not_finite_are_an_error_and_tokens_that_are_ruled_out_are_not",),
        LM: ("test_weights_that_are_not_finite_in_the_dtype_are_named",),
    },
    "weights that are missing; a base model without its head": {
        LM: ("test_weights_that_the_checkpoint_lacks_are_named_and_not_made_up",),
        MODELS: ("test_a_base_model_without_its_head_is_not_given_a_random_one",),
    },
    "checkpoints that can't be loaded: quantised ones, shards that are pointers or cut, wrong shapes and types": {
        MODELS: (
            "test_a_quantised_checkpoint_is_refused_by_its_configuration",
            "test_a_shard_that_does_not_hold_the_table_is_missed_when_the_model_is_loaded",
        ),
        LM: ("test_whatever_else_loading_raises_is_one_message",),
    },
    "classes that can't read embeddings, rescale, or are no causal language model": {
        MODELS: (
            "test_a_class_that_cannot_serve_is_refused_when_its_table_is_read",
            "test_a_hybrid_that_reads_embeddings_serves",
        ),
        ABILITIES: ("test_a_configuration_that_cannot_serve_is_refused",),
    },
    "batches in which padding changes answers": {
        GENERATE: (
            "test_a_model_that_padding_confuses_reads_prompts_one_by_one",
            "test_padding_is_harmless_where_positions_come_from_the_mask",
        ),
    },
    "a context that prompt and answer do not fit into, whatever the configuration calls it": {
        LM: ("test_the_context_length_has_many_names",),
        "workflow/test_bad_inputs.py": ("test_an_answer_that_does_not_fit_into_the_models_context",),
    },
    "long contexts: a thousand sentences, other scripts, no sentence marks": {
        PROMPTS: (
            "test_a_thousand_sentences_cost_a_few_renderings",
            "test_in_every_script_a_long_context_is_trimmed_and_the_answer_stays",
        ),
        "unit/data/test_prepare.py": ("test_what_an_evaluation_split_lacks_is_warned_of",),
    },
    "the same paragraph or question under another title": {
        "unit/data/test_splits.py": (
            "test_articles_that_share_a_paragraph_are_one_whatever_their_titles",
            "test_a_paragraph_in_both_sources_is_a_leak_and_so_is_a_questions_id",
        ),
    },
    "question files with half a surrogate pair, titles that are numbers, byte-order marks, malformed parts": {
        SQUAD: (
            "test_what_no_tokenizer_reads_is_named",
            "test_a_byte_order_mark_is_no_part_of_the_json",
            "test_a_malformed_article_is_passed_over_with_its_questions",
        ),
    },
    "answers in other languages than English": {
        "unit/evaluation/test_squad_metrics.py": ("test_other_definitions_on_cases_worked_by_hand",),
        SCORES: ("test_references_that_the_official_definition_was_not_made_for_are_said",),
    },
}  # fmt: skip


def table() -> str:
    """Markdown: each kind with its tests."""
    lines = ["| kind of report | tests |", "|---|---|"]
    for kind, files in REPORTS.items():
        tests = "; ".join(f"`{file}`: {', '.join(f'`{name}`' for name in names)}" for file, names in files.items())
        lines.append(f"| {kind} | {tests} |")
    return "\n".join(lines)


def outcomes(files: dict[str, tuple[str, ...]], report: Path) -> Iterator[tuple[str, str, str]]:
    """The cases of some tests: each with its name, how it ended, and what explains a wrong end."""
    chosen = [f"tests/{file}::{name}" for file, names in files.items() for name in names]
    command = [sys.executable, "-m", "pytest", "-q", "--junitxml", report, *chosen]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    cases = [*ElementTree.parse(report).iter("testcase")] if report.exists() else []
    if not cases:
        yield "none", "unclear", ended.stdout + ended.stderr
    for case in cases:
        wrong = [part for part in case if part.tag in ("failure", "error")]
        skipped = case.find("skipped") is not None
        outcome = "differs" if wrong else "skipped" if skipped else "right"
        yield str(case.get("name")), outcome, "\n".join(part.text or "" for part in wrong)


def campaign(experiment: Experiment, turn: Turn) -> None:
    """One kind after another."""
    experiment.folder.mkdir(parents=True, exist_ok=True)
    report = experiment.folder / "reports.xml"
    for number, (kind, files) in enumerate(REPORTS.items()):
        if turn.going and not turn.number(f"{number} "):
            report.unlink(missing_ok=True)
            for name, outcome, detail in outcomes(files, report):
                turn.add(f"{number} {name}", kind, outcome, detail)
