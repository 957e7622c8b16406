"""The arms, one row each, from ceiling to floor. Standard library only: the Snakefile imports this."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Literal, Self

Noise = Literal["rows", "shrunk", "equal"]
# What a token type weighs in an epoch of Phase 1's steps: its count, the square root of that plus one, or as all do.
Weighting = Literal["counts", "root", "type"]


@dataclass(frozen=True)
class Arm:
    """One way of feeding the prompt to the frozen model.

    Attributes:
        name: in the configuration, in results and in reports.
        kind: ``reference`` (uncompressed), ``codec`` (rebuilt from what a codec stores), ``bound`` (a decoder that
            keeps the whole table), ``control`` (original rows, with a random error of a codec's size or through an
            adapter) or ``floor``.
        legend: what the model reads.
        codec: the untrained codec that it is, or whose codes it reads; None for none.
        family: the module of :mod:`latentwire.codecs` that fits that codec.
        sized: its codec depends on the code dimension K.
        stage: the training that its adapter comes from; None for none. Neither the code dimension nor a gate decides
            about ``uncompressed``, Phase 2's steps from the identity, and ``quantised``, Phase 1's on rebuilt rows.
        weighting: of token types in Phase 1's steps (:func:`~latentwire.training.phase1.type_weights`).
        own_codes: its codes are trained, too; otherwise they are those of ``codec``.
        prompt: the column of the prepared prompts that is read.
        sampled: answers ``evaluate.identity_samples`` questions alone.
        noise: how the random error is spread (:mod:`latentwire.arms.controls`); None for no random error.
        error_of: the arm whose error that is as large as; None for no random error.
    """

    name: str
    kind: Literal["reference", "codec", "bound", "control", "floor"]
    legend: str
    codec: str | None = None
    family: str = "linear"
    sized: bool = True
    stage: Literal["phase1", "phase2", "uncompressed", "quantised"] | None = None
    weighting: Weighting = "counts"
    own_codes: bool = False
    prompt: Literal["input_ids", "question_ids"] = "input_ids"
    sampled: bool = False
    noise: Noise | None = None
    error_of: str | None = None

    @property
    def seeded(self) -> bool:
        """Whether it depends on a seed: a training's, or a noise's, whose seeds are its draws; one may be both."""
        return self.stage is not None or self.noise is not None

    @property
    def rebuilds(self) -> bool:
        """Whether the model reads rebuilt embeddings of the whole prompt, rather than token ids."""
        return self.name != "text" and self.prompt == "input_ids"

    @property
    def codec_module(self) -> str | None:
        """The module of the codec that it is, or decodes; None for none."""
        if self.codec is None:
            return None
        if self.stage is None or self.own_codes:
            return f"latentwire.codecs.{self.family}"
        return f"latentwire.codecs.{'adapted_product' if self.stage == 'quantised' else 'adapted'}"

    @property
    def determining(self) -> str:
        """What of the row determines the arm's answers."""
        return f"{self.kind} {self.codec} {self.sized} {self.stage} {self.prompt} {self.sampled}{self.noise or ''}"


_PRODUCT = "product quantisation: one of 256 codewords per {} dimensions, fitted by token counts + 1"
_ADAPTED: tuple[tuple[str, Weighting, str], ...] = (
    ("adapted_pq8", "counts", "pq8's rows, to which an adapter trained on reconstruction adds"),
    ("adapted_pq8_root", "root", "as adapted_pq8, trained as phase1_root"),
)
_CODECS = (
    Arm("text", "reference", "token ids, uncompressed: the ceiling"),
    Arm("identity", "reference", "the original embeddings, uncompressed: must equal text", sampled=True),
    Arm(
        "phase2",
        "codec",
        "codes rebuilt by the adapter after training through the language model",
        "pca",
        stage="phase2",
    ),
    Arm(
        "control",
        "codec",
        "codes rebuilt by the adapter after Phase 2's steps on reconstruction alone",
        "pca",
        stage="phase2",
    ),
    Arm(
        "distilled",
        "codec",
        "codes rebuilt by the adapter after Phase 2's steps with distillation in place of cross-entropy",
        "pca",
        stage="phase2",
    ),
    Arm(
        "bottleneck",
        "codec",
        "a linear code and its inverse, PCA's at the start, both trained by Phase 2's steps",
        "pca",
        stage="phase2",
        own_codes=True,
    ),
    Arm("phase1", "codec", "codes rebuilt by the adapter trained on reconstruction", "pca", stage="phase1"),
    Arm(
        "phase1_root",
        "codec",
        "as phase1, in training a token type weighs the square root of its count, plus 1",
        "pca",
        stage="phase1",
        weighting="root",
    ),
    Arm(
        "phase1_type",
        "codec",
        "as phase1, PCA and training by token types: every row weighs the same",
        "pca_type",
        stage="phase1",
        weighting="type",
    ),
    Arm(
        "random",
        "codec",
        "codes of a random projection instead of PCA, rebuilt by an adapter trained like phase1's",
        "random",
        stage="phase1",
    ),
    Arm("pca", "codec", "codes rebuilt by PCA's own inverse, nothing trained", "pca"),
    Arm("pca_root", "codec", "as pca, fitted by the square root of (token counts + 1)", "pca_root"),
    Arm("pca_type", "codec", "as pca, fitted by token types: every row weighs the same", "pca_type"),
    Arm("snap", "bound", "for each code, the token of the vocabulary with the nearest code", "pca"),
    Arm("snap_d", "bound", "for each code, the token nearest to PCA's inverse", "pca"),
    Arm(
        "quant",
        "codec",
        "each number of the original embedding in 1, 2 or 4 bits, at no more bits than the code",
        "quant",
        family="scalar",
    ),
    *(
        Arm(name, "codec", legend, name, family="rounded")
        for name, legend in (
            ("pca_int8", "pca's codes rounded to integers of 8 bits, a step per code dimension"),
            ("pca_int4", "pca's codes rounded to integers of 4 bits, a step per code dimension"),
        )
    ),
    *(
        Arm(f"{name}{suffix}", "codec", f"{legend} per {group} dimensions", f"{name}{suffix}", "integers", sized=False)
        for name, legend in (
            ("int8", "integers of 8 bits, symmetric, a scale"),
            ("int4", "integers of 4 bits, symmetric, a scale"),
            ("int4_asymmetric", "integers of 4 bits, a scale and a minimum"),
            ("int2", "integers of 2 bits, symmetric, a scale"),
            ("int2_asymmetric", "integers of 2 bits, a scale and a minimum"),
        )
        for suffix, group in (("", 64), ("_g32", 32), ("_g128", 128))
    ),
    *(
        Arm(name, "codec", legend, name, family=family, sized=False)
        for name, family, legend in (
            ("fp8", "fp8", "floating-point numbers of 8 bits (E4M3), a scale per row"),
            ("nf4", "nf4", "4-bit NormalFloat: 16 levels, a scale per 64 dimensions"),
            ("rotated4", "rotated", "rotated at random, each number in 4 bits, a scale per row"),
            ("rotated2", "rotated", "rotated at random, each number in 2 bits, a scale per row"),
            ("pq4", "product", _PRODUCT.format(4)),
            ("pq4_root", "product", "as pq4, fitted by the square root of (token counts + 1)"),
            ("pq4_type", "product", "as pq4, fitted by token types: every row weighs the same"),
            ("pq6", "product", _PRODUCT.format(6)),
            ("pq8", "product", _PRODUCT.format(8)),
            ("pq8_type", "product", "as pq8, fitted by token types: every row weighs the same"),
            ("rq8", "residual", "residual quantisation: pq8, and pq8 of what it leaves, fitted by token counts + 1"),
        )
    ),
    *(
        Arm(name, "codec", legend, "pq8", "product", sized=False, stage="quantised", weighting=weighting)
        for name, weighting, legend in _ADAPTED
    ),
)
_SPREADS: tuple[tuple[Noise, str], ...] = (
    ("rows", "original rows with a random error as large as {}'s in the same row"),
    ("shrunk", "original rows shrunk as {}'s are, and the rest of its error at random"),
    ("equal", "original rows with a random error of {}'s FVU, equal for all rows"),
)
# The codecs of which the error can be compared with random ones.
NOISE_CODECS = tuple(row.name for row in _CODECS if row.kind == "codec")
ROWS = (
    *_CODECS,
    *(
        replace(
            row,
            name=f"noise_{noise}_{row.name}",
            kind="control",
            legend=legend.format(row.name),
            noise=noise,
            error_of=row.name,
        )
        for row in _CODECS
        if row.name in NOISE_CODECS
        for noise, legend in _SPREADS
    ),
    Arm(
        "identity_ppl",
        "control",
        "the original embeddings through an adapter trained by Phase 2's steps on cross-entropy alone",
        "identity_ppl",
        sized=False,
        stage="uncompressed",
    ),
    Arm("mean", "floor", "the mean embedding for every token: a floor"),
    Arm("question", "floor", "the question without its context: a floor", prompt="question_ids"),
)
ARMS = {row.name: row for row in ROWS}
# The fitted compressor that a codec's codes come from, by the codec's name.
COMPRESSORS = {
    "pca": "pca", "pca_root": "pca_root", "pca_type": "pca_type", "random": "random", "pca_int8": "pca",
    "pca_int4": "pca", "identity_ppl": "identity",
}  # fmt: skip


def _trained(stage: str) -> tuple[str, ...]:
    return tuple(row.name for row in ROWS if row.stage == stage and not row.noise)


TRAINED = {stage: _trained(stage) for stage in ("phase1", "phase2")}
UNCOMPRESSED, QUANTISED = _trained("uncompressed"), _trained("quantised")
# The plan's own arms, which no configuration names; the gate decides about Phase 2's.
ALWAYS = ("text", "phase1", "phase2", "control")
# What is evaluated together with one load of the model, and on which split.
EVALUATIONS = {"ceiling": "gate", "phase1": "gate", "final": "final"}


def arm_row(name: str) -> Arm:
    """The row of an arm; one that the table doesn't have is a codec of the user's own."""
    return ARMS.get(name) or Arm(
        name, "codec", f"the codec {name}, from a file of the configuration", name, family="base"
    )


def ordered_arms(arms: Iterable[str]) -> list[str]:
    """Names of arms from ceiling to floor, a user's own codecs after the project's."""
    given = dict.fromkeys(arms)
    last = max(place for place, row in enumerate(ROWS) if row.kind == "codec")
    names = list(ARMS)
    own = [name for name in given if name not in ARMS]
    return [name for name in [*names[: last + 1], *own, *names[last + 1 :]] if name in given]


@dataclass(frozen=True)
class Variant:
    """An arm at one code dimension and seed, if it depends on these."""

    arm: str
    k: int | None = None
    seed: int | None = None

    @classmethod
    def of(cls, arm: str, k: int, seed: int) -> Self:
        """The arm at ``k`` and ``seed``, without what it does not depend on."""
        row = arm_row(arm)
        return cls(arm, k if row.codec and row.sized else None, seed if row.seeded else None)

    @classmethod
    def parse(cls, text: str) -> Self:
        """From ``arm``, ``arm:k``, ``arm:k:seed``, or ``arm:seed`` of a seeded arm that has no code dimension.

        Raises:
            ValueError: it is neither, or the arm needs more.
        """
        arm, *numbers = text.split(":")
        row = arm_row(arm)
        if len(numbers) != bool(row.codec and row.sized) + row.seeded or not all(map(str.isdecimal, numbers)):
            raise ValueError(f"{text!r}: expected arm, arm:k, or arm:k:seed, as the arm depends on them")
        given = list(map(int, numbers))
        seed = given.pop() if row.seeded else None
        return cls(arm, given.pop() if given else None, seed)

    def __str__(self) -> str:
        return ":".join(str(part) for part in (self.arm, self.k, self.seed) if part is not None)
