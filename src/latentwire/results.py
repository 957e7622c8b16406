"""What the programs' JSON results hold, for those that write them and those that read them.

Fractions, not percent; intervals are :class:`~latentwire.evaluation.statistics.Interval`.
"""

from __future__ import annotations

from typing import Any, Literal, NotRequired, TypedDict, get_origin, get_type_hints

Reading = Literal["validated", "partial", "failing"]
Outcome = Literal["validated_phase1", "validated_phase2", "partial", "failed", "void"]


def required_keys(kind: type) -> frozenset[str]:
    """What an object of one of these types has at least: ``__required_keys__`` does not know postponed annotations."""
    hints = get_type_hints(kind, include_extras=True)
    return frozenset(name for name, hint in hints.items() if get_origin(hint) is not NotRequired)


class IntervalRecord(TypedDict):
    """An estimate with its limits, or the reason why it has none."""

    estimate: float | None
    lower: float | None
    upper: float | None
    standard_error: float | None
    confidence: float
    questions: int
    articles: int
    resamples: int
    seed: int
    refused: str | None


def estimate_of(interval: IntervalRecord) -> float:
    """The estimate of a mean over questions, which always has one (a ratio's denominator may be 0)."""
    assert interval["estimate"] is not None
    return interval["estimate"]


# ---- training: summary.json


class Calibration(TypedDict):
    """Mean losses and norms of their gradients at the start; None if the control has no model to measure with.

    ``prompt_loss`` is what β weighs: the prompt's cross-entropy, or KL if it is distilled.
    """

    reconstruction: float
    prompt_loss: float | None
    alpha: float
    beta: float
    gradient_norm_reconstruction: float
    gradient_norm_prompt_loss: float | None


class PromptLoss(TypedDict):
    """Cross-entropy of held-out prompts in nats per token: ``all``, ``first`` and ``repeated`` mentions."""

    prompts: int
    text: dict[str, float]
    start: dict[str, float]
    end: dict[str, float]
    control: NotRequired[dict[str, float]]


class TrainingLength(TypedDict):
    """How long a training was, and how much of the prompts it saw."""

    steps: int
    planned_steps: int
    prompts_seen: int
    train_prompts: int


class TrainingSummary(TrainingLength):
    """A trained adapter's ``summary.json``; ``start`` and ``end`` are rows of its diagnostics."""

    settings: dict[str, Any]
    parameters: int
    start: dict[str, float]
    end: dict[str, float]


class Phase1Summary(TrainingSummary):
    """Of Phase 1, with the size of the embedding table."""

    table_parameters: int
    table_width: int


class Phase2Findings(TypedDict):
    """What Phase 2 measures beside its losses; the control has no prompt loss."""

    calibration: Calibration
    prompt_loss: NotRequired[PromptLoss]


class Phase2Summary(TrainingSummary, Phase2Findings):
    """Of Phase 2 or its control."""


# ---- the ceiling check and the gate


class SubsetF1(TypedDict):
    """F1 on some of the questions."""

    estimate: float
    questions: int


class AnswerCounts(TypedDict):
    """How many answers an arm gave, and how many of them point to a collapse."""

    questions: int
    empty: int
    length_capped: int
    degenerate: int
    wrapped: int


class ArmF1(TypedDict):
    """An arm's scores on one split."""

    f1: IntervalRecord
    em: IntervalRecord
    f1_unseen_answer_type: NotRequired[SubsetF1]
    f1_seen_answer_types: NotRequired[SubsetF1]
    counts: AnswerCounts
    distinct_1: float


class EqualAnswers(TypedDict):
    """On how many of the questions two arms gave the same answer."""

    questions: int
    equal: int


class Ceiling(TypedDict):
    """``ceiling.json``: what the uncompressed arms say on ``gate``."""

    passed: bool
    override: bool
    threshold: float
    arms: dict[str, ArmF1]
    identity_equals_text: NotRequired[EqualAnswers]


class Decision(TypedDict):
    """``decision.json``, which routes the workflow: this and nothing else."""

    run_phase2: bool


class Evidence(TypedDict):
    """``evidence.json``: what the gate decided from, and what it did not: KL and same top token at prompt positions.

    These are None if nothing was measured.
    """

    f1: IntervalRecord
    kl: IntervalRecord | None
    same_top: IntervalRecord | None
    f1_seed_deviation: float | None
    seeds: int
    difference_to_text: IntervalRecord
    threshold: float
    failing: float
    passed: bool
    reading: Reading
    straddles: list[float]
    forced: bool
    ceiling: IntervalRecord
    ceiling_passed: bool


# ---- the verdict

# The subset of positions that are another domain's text.
OTHER_DOMAIN = "other_domain"


class Reconstruction(TypedDict):
    """Means over the tokens of a subset of positions."""

    fvu: float
    cosine: float
    centred_cosine: float
    relative_error: float
    nearest_token: float
    tokens: int


class Rate(TypedDict):
    """What a codec stores of the embedding table, everything counted, as it lies on disk."""

    bits_per_parameter: float
    megabytes: float
    megabytes_by_dtype: dict[str, float]


class Divergence(TypedDict):
    """How far an arm moves the model's predictions at a subset of positions.

    ``kl_over_prompt`` is of another domain's text: its KL over that at the prompts' positions.
    """

    kl: IntervalRecord
    same_top: IntervalRecord
    log_likelihood_change: NotRequired[IntervalRecord]
    positions: int
    kl_over_prompt: NotRequired[IntervalRecord]


class RetentionAboveFloor(IntervalRecord):
    """The share of the distance from the higher floor to the ceiling that an arm keeps."""

    floor: str


class ArmVerdict(ArmF1):
    """An arm on ``final``."""

    seeds: int
    f1_seed_deviation: float | None
    difference_to_text: IntervalRecord
    retention: IntervalRecord
    retention_above_floor: NotRequired[RetentionAboveFloor]
    rate: Rate | None
    divergence: dict[str, Divergence] | None


class Criterion(TypedDict):
    """One of the plan's success criteria."""

    criterion: str
    threshold: str
    value: float
    interval: IntervalRecord | None
    passed: bool
    note: str


class Cause(TypedDict):
    """A cause that a failure may have, with its evidence and the command of the experiment that would tell."""

    cause: str
    evidence: dict[str, float | int | None]
    reading: str
    command: str


class Kept(TypedDict):
    """Which codecs are shown to keep a share of the uncompressed text's F1, by their names over all code dimensions.

    ``detectable`` is the loss of F1 that 80% of such samples find in a test at 5%, the median over codecs; ``needed``
    is how many questions a codec that answers all like the text needs to be shown; ``shown`` is in the order of
    ``bits`` per table parameter; ``p`` is Holm's, None if it can't be tested.
    """

    share: float
    detectable: float | None
    needed: int | None
    cheapest: str | None
    shown: list[str]
    bits: dict[str, float]
    p: dict[str, float | None]


class MethodAtRate(TypedDict):
    """Of the codecs at about so many ``bits`` per table parameter the one of the least KL, beside the next best.

    KL is at prompt positions; ``ratio`` is the codec's KL over the next best's, paired. ``next_best`` and ``ratio``
    are None if there is no other codec.
    """

    bits: float
    codec: str
    codec_bits: float
    kl: IntervalRecord
    next_best: str | None
    next_bits: float | None
    ratio: IntervalRecord | None


class NextStep(TypedDict):
    """What to run next, and why."""

    why: str
    command: str | None


class BitsPerToken(TypedDict):
    """Bits per prompt token: of the code, of the embedding, of the token's id; and the ratio of the dimensions."""

    code: float
    embedding: float
    token_id: float
    ratio: float


class MeasureCorrelation(TypedDict):
    """Rank correlation over arms of one measure of reconstruction with the KL and with the F1 that is lost."""

    measure: str
    kl: IntervalRecord
    f1: IntervalRecord


class Predictive(TypedDict):
    """Whether reconstruction predicts generation, over these arms."""

    arms: list[str]
    measures: list[MeasureCorrelation]


class HarmOfError(TypedDict):
    """A codec's KL over that of equal noise of its FVU: ``total`` = ``allocation`` · ``direction``.

    ``shrinkage`` is a part of ``direction``. ``draw_deviation`` is relative, None for one draw.
    """

    codec: str
    total: IntervalRecord
    allocation: IntervalRecord
    direction: IntervalRecord
    shrinkage: IntervalRecord
    draws: int
    draw_deviation: float | None


class MeasuredDimension(TypedDict):
    """What was measured at one code dimension, and what follows for the threshold."""

    k: int
    seeds: list[int]
    bits_per_token: BitsPerToken
    explained_variance_ratio: float
    gate: Evidence
    chosen: str
    outcome: Outcome
    f1: IntervalRecord
    threshold: float
    wording: str
    p_value: float | None
    agrees_with_gate: bool
    criteria: list[Criterion]
    training: dict[str, TrainingLength]
    arms: dict[str, ArmVerdict]
    comparisons: dict[str, IntervalRecord]
    kl_ratios: dict[str, IntervalRecord]
    reconstruction: dict[str, dict[str, Reconstruction | None]]
    predictive: Predictive | None
    harm_of_error: list[HarmOfError]
    phase2: list[Phase2Findings]
    causes: list[Cause]
    role: NotRequired[Literal["primary", "exploratory"]]
    p_value_holm: NotRequired[float | None]


class DimensionVerdict(MeasuredDimension):
    """The verdict on one code dimension: what was measured there, and what to do next."""

    instead: NextStep | None
    next: NextStep


class ModelOrigin(TypedDict):
    """The language model: ``made_from`` is its card's base and LoRA adapter, if the project made it."""

    path: str
    revision: str | None
    made_from: dict[str, Any] | None


class DataOrigin(TypedDict):
    """The data set, as the configuration names it."""

    source: str
    path: str | None
    train_file: str | None
    dev_file: str | None
    revision: str | None


# By which a verdict is known, also one that was written before it said more.
VERDICT_KEYS = frozenset({"experiment", "entries"})


class Verdict(TypedDict):
    """``verdict.json``."""

    experiment: str
    model: ModelOrigin
    data: DataOrigin
    date: str
    commit: str | None
    seeds: list[int]
    configuration: str
    confirmatory: bool
    configurations_that_read_final: list[str]
    outcome: Outcome
    wording: str
    warnings: list[str]
    ceiling: Ceiling
    kept: list[Kept]
    methods: list[MethodAtRate]
    entries: list[DimensionVerdict]
