"""Every setting once: its name, type, default, bounds and description.

The configuration's checks and JSON schema, the programs' flags with their help, and ``docs/configuration.md`` are made
from these classes. A section holds the settings of one program. The defaults are the headline experiment's. Nothing
slow is imported: the Snakefile imports this.
"""

from __future__ import annotations

import json
import os
import re
import types
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationInfo, field_validator


def _unique(values: list[Any]) -> list[Any]:
    if len(set(values)) < len(values):
        raise ValueError("has an element twice")
    return values


Seed = Annotated[int, Field(ge=0, le=2**31 - 1)]
Count = Annotated[int, Field(ge=1, le=10**9)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Threshold = Annotated[float, Field(gt=0, lt=1)]
Occurrences = Annotated[float, Field(ge=0, le=1e6)]


def _name(text: str) -> str:
    """A path or name that commands and file systems take as it is, or that the home directory completes."""
    if not text.strip() or len(text.encode(errors="replace")) > 1000 or text.startswith("-"):
        raise ValueError("should be a name of at most 1000 bytes that does not begin with '-'")
    if not text.isprintable():
        raise ValueError("should hold no line ends and no other characters that can't be printed")
    return os.path.expanduser(text)


def _prompt(text: str) -> str:
    """A text that fits into a command and that UTF-8 can hold."""
    if len(text) > 20_000 or "\0" in text or any("\ud800" <= character <= "\udfff" for character in text):
        raise ValueError("should have at most 20000 characters, no NUL, and no half of a surrogate pair")
    return text


Name = Annotated[str, AfterValidator(_name)]
Prompt = Annotated[str, AfterValidator(_prompt)]
Weight = Annotated[float, Field(ge=0, le=1e9)]
Unique = (AfterValidator(_unique), Field(json_schema_extra={"uniqueItems": True}))
Seeds = Annotated[list[Seed], Field(min_length=1), *Unique]

CodecName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$", max_length=100)]

PromptStyle = Literal["chat", "plain"]
OnLongPrompt = Literal["error", "trim"]
Scoring = Literal["squad", "words", "characters"]
OriginalArm = Literal["identity", "mean", "question"]
TableArm = Literal[
    "int8", "int8_g32", "int8_g128", "int4", "int4_g32", "int4_g128", "int4_asymmetric", "int4_asymmetric_g32",
    "int4_asymmetric_g128", "int2", "int2_g32", "int2_g128", "int2_asymmetric", "int2_asymmetric_g32",
    "int2_asymmetric_g128", "fp8", "nf4", "rotated4", "rotated2",
    "identity_ppl", "pq4", "pq4_root", "pq4_type", "pq6", "pq8", "pq8_type", "rq8", "adapted_pq8", "adapted_pq8_root",
]  # fmt: skip
CodeArm = Literal[
    "pca", "pca_root", "pca_type", "snap", "snap_d", "quant", "pca_int8", "pca_int4", "random", "distilled",
    "phase1_root", "phase1_type", "bottleneck",
]  # fmt: skip
BaselineArm = Literal[OriginalArm, CodeArm, TableArm]
NoiseCodec = Literal[
    "phase2", "control", "distilled", "bottleneck", "phase1", "phase1_root", "phase1_type", "random",
    "pca", "pca_root", "pca_type", "quant", "pca_int8", "pca_int4",
    "int8", "int8_g32", "int8_g128", "int4", "int4_g32", "int4_g128", "int4_asymmetric", "int4_asymmetric_g32",
    "int4_asymmetric_g128", "int2", "int2_g32", "int2_g128", "int2_asymmetric", "int2_asymmetric_g32",
    "int2_asymmetric_g128", "fp8", "nf4", "rotated4", "rotated2", "pq4", "pq4_root", "pq4_type", "pq6", "pq8",
    "pq8_type", "rq8", "adapted_pq8", "adapted_pq8_root",
]  # fmt: skip
Draws = Annotated[int, Field(ge=1, le=100)]


def takes_none(annotation: Any) -> bool:
    """Whether None is among the values of a type."""
    if get_origin(annotation) is Annotated:
        return takes_none(get_args(annotation)[0])
    is_union = get_origin(annotation) in (Union, types.UnionType)
    return annotation is type(None) or (is_union and any(map(takes_none, get_args(annotation))))


class Section(BaseModel):
    """A section of the configuration: unknown keys are refused, numeric strings are numbers."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _as_written(cls, value: Any, info: ValidationInfo) -> Any:
        """``null`` as text, as ``--config`` and flags give it, is None; ``true`` is not the number 1."""
        annotation = cls.model_fields[str(info.field_name)].annotation
        if isinstance(value, str) and value.lower() in ("null", "none") and takes_none(annotation):
            return None
        if annotation is not bool and any(
            isinstance(one, bool) for one in (value if isinstance(value, list) else [value])
        ):
            raise ValueError("should not be a truth value")
        return value


def section_of(annotation: Any) -> type[Section] | None:
    """The section that a field is of, or None if it is a value."""
    return annotation if isinstance(annotation, type) and issubclass(annotation, Section) else None


def wanted(error: Any) -> str:
    """What a value should be, by an error of pydantic, to follow the value in a sentence."""
    own = {"missing": "is missing", "model_type": "should be a section with keys of its own"}
    return own.get(error["type"]) or re.sub("^(Input|String|List|Value error,) ", "", error["msg"])


class Exploratory(Section):
    """Overrides for the code dimensions after the first, which are exploratory."""

    seeds: Seeds | None = None
    """Training seeds; null for those of the primary dimension."""
    arms: Annotated[list[CodeArm], *Unique] | None = None
    """Arms besides text and phase1; null for those of evaluate.arms."""


# What a chat template is given besides the user's variables, or what its rendering is asked for.
TAKEN_VARIABLES = frozenset(
    {
        *("self", "conversation", "conversations", "messages", "tools", "documents", "chat_template", "tokenize"),
        *("add_generation_prompt", "continue_final_message", "sanitize_control_tokens", "padding", "truncation"),
        *("max_length", "return_tensors", "return_dict", "return_assistant_tokens_mask", "tokenizer_kwargs", "kwargs"),
        *("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"),
        *("additional_special_tokens", "raise_exception", "strftime_now", "range", "namespace"),
    }
)


def _from_json(value: object) -> object:
    """The value of a flag, which is text, as JSON."""
    try:
        return json.loads(value) if isinstance(value, str) else value
    except (ValueError, RecursionError):
        raise ValueError("should be a JSON object of texts, integers and truth values") from None


def _own_variable(name: str) -> str:
    if name in TAKEN_VARIABLES:
        raise ValueError("should be a variable of the template's own: this one is set for it")
    return name


def _typed(value: object) -> object:
    """An integer or a truth value that ``--config`` gives as text, where any text would be true."""
    if isinstance(value, str) and value.lower() in ("true", "false"):
        return value.lower() == "true"
    return int(value) if isinstance(value, str) and re.fullmatch("-?[0-9]{1,9}", value) else value


def _fitting(values: dict[str, Any]) -> dict[str, Any]:
    """Variables that fit into a command together."""
    if len(json.dumps(values)) > 4000:
        raise ValueError("should have at most 4000 characters as JSON")
    return values


TemplateVariable = Annotated[
    str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$", max_length=100), AfterValidator(_own_variable)
]
TemplateValue = Annotated[bool | Annotated[int, Field(ge=-(10**9), le=10**9)] | Prompt, BeforeValidator(_typed)]
TemplateArguments = Annotated[
    dict[TemplateVariable, TemplateValue], BeforeValidator(_from_json), AfterValidator(_fitting)
]


class Model(Section):
    """The frozen language model."""

    path: Name = "meta-llama/Llama-3.1-8B-Instruct"
    """Model on the Hugging Face Hub, or a local directory with safetensors."""
    revision: Name | None = "0e9e39f249a16976918f6564b8830bc894c89659"
    """Commit of the model on the hub; null for a local directory."""
    dtype: Literal["float32", "bfloat16", "float16"] = "bfloat16"
    """dtype of the frozen model."""
    prompt_style: PromptStyle = "chat"
    """chat (the model's own template) or plain ("... Answer:")."""
    system_prompt: Prompt | None = (
        "Answer the question with a phrase copied from the context. Give the phrase only: no sentence, no explanation."
    )
    """System message of the chat style, or null."""
    template_arguments: TemplateArguments = {}
    """Variables of the chat template, such as {"enable_thinking": false}."""


class Data(Section):
    """Questions and their splits."""

    source: Literal["hub", "local", "demo"] = "hub"
    """Where questions come from: hub (path), local (train_file, dev_file) or demo (the embedded corpus)."""
    path: Name | None = "rajpurkar/squad"
    """Dataset on the hub."""
    revision: Name | None = "7b6d24c440a36b6815f21b70d25016731768db1f"
    """Commit of the dataset on the hub."""
    train_file: Name | None = None
    """Official SQuAD v1.1 JSON: the training set, or the single file to cut into three splits."""
    dev_file: Name | None = None
    """Official SQuAD v1.1 JSON: the development set, whose articles become gate and final."""
    seed: Seed = 0
    """Seed of the splits and samples, and of the demo corpus."""
    train_samples: Annotated[int, Field(ge=2, le=10**9)] | None = 10_000
    """Training questions; null takes all."""
    gate_samples: Count | None = 2_000
    """Questions of gate, the validation split on which decisions are made; null takes all."""
    final_samples: Count | None = None
    """Questions of final, the test split that is read once, at the end; null takes all."""
    spread_over_articles: bool = False
    """Draw gate's and final's samples evenly over their articles; otherwise every question is as likely as another."""
    max_prompt_tokens: Annotated[int, Field(ge=16, le=10**6)] = 1024
    """Longest prompt in tokens, at most the model's context."""
    on_long_prompt: OnLongPrompt = "error"
    """What to do with a longer evaluation prompt: error, or trim its context. Training prompts are always trimmed."""
    skip_invalid: bool = False
    """Pass over malformed articles, paragraphs and questions, and count them; otherwise the first is an error."""


class Pca(Section):
    """The compressor."""

    samples: Literal["auto", "all"] | Count = "auto"
    """Training prompts that PCA sees: a number, all, or auto = min(5000, train_samples // 2)."""
    smoothing: Occurrences = 0
    """Token occurrences added to every row of the table, so that tokens outside the PCA split count a little."""


class AdapterSettings(Section):
    """The network from codes back to embeddings."""

    hidden: Annotated[int, Field(ge=1, le=10**6)] | None = None
    """Hidden width; null is half the embedding dimension (19.9 M parameters at 512 -> 4096)."""


Size = Annotated[int, Field(ge=1, le=10**6)]
LearningRate = Annotated[float, Field(gt=0, le=1)]


class Optimiser(Section):
    """AdamW with a linear warm-up and a cosine decay."""

    lr: LearningRate = 1e-3
    """Peak learning rate of AdamW."""
    weight_decay: Fraction = 0.01
    """Weight decay of matrices."""
    warmup_fraction: Fraction = 0.05
    """Fraction of the steps over which the learning rate rises; it then falls along a cosine."""
    gradient_clip: Annotated[float, Field(gt=0, le=1e6)] = 1.0
    """Largest gradient norm."""


class Phase1(Optimiser):
    """Training on reconstruction alone."""

    epochs: Annotated[int, Field(ge=1, le=10**5)] = 3
    """Passes over the training prompts."""
    batch_size: Size = 32
    """Prompts per step."""
    lr: LearningRate = 1e-3
    """Peak learning rate of AdamW."""
    smoothing: Occurrences = 0
    """Occurrences per epoch of every vocabulary token besides its own in the training prompts."""


class Phase2(Optimiser):
    """Generation-aware training below the gate, and its control."""

    epochs: Annotated[float, Field(gt=0, le=10**5)] = 1
    """Passes over the training prompts; below 1, a part of them."""
    batch_size: Size = 8
    """Prompts per step."""
    lr: LearningRate = 1e-4
    """Peak learning rate of AdamW."""
    alpha: Literal["auto"] | Weight = "auto"
    """Weight of reconstruction, or auto: one over its mean at calibration."""
    beta: Literal["auto"] | Weight = "auto"
    """Weight of prompt cross-entropy, or auto: one over its mean at calibration."""
    calibration_batches: Annotated[int, Field(ge=1, le=10**5)] = 16
    """Training batches of the calibration."""
    measure_prompts: Annotated[int, Field(ge=1, le=10**6)] = 200
    """Held-out prompts whose cross-entropy is measured as training goes."""
    activation_checkpointing: bool = False
    """Compute the model's activations again in the backward pass: less GPU memory, up to half more time (expected)."""


class Evaluate(Section):
    """Generation of answers."""

    arms: Annotated[list[BaselineArm], *Unique] = [
        "identity", "mean", "question", "pca", "snap", "snap_d", "quant", "random"
    ]  # fmt: skip
    """Arms besides text and phase1; phase2 and control follow the gate, as do distilled and bottleneck if named."""
    noise_controls: dict[NoiseCodec, Draws] = {}
    """Codecs, each with a number of random errors of its size to compare with ({pca: 3}); at most one per training."""
    batch_size: Annotated[int, Field(ge=1, le=10**5)] = 256
    """Most prompts per batch; the same for all arms, since it changes bf16 results slightly."""
    max_new_tokens: Annotated[int, Field(ge=1, le=10**4)] = 32
    """Maximum answer length in tokens; the same for every question."""
    identity_samples: Count | None = 200
    """Questions of the identity arm, which must equal text, in whole batches of text; null takes all."""
    divergence_samples: Count | None = 1000
    """Questions, evenly spaced, on which predictions are compared with the uncompressed model's; null takes all."""
    other_domain: Name | None = None
    """JSON lines of another domain's text on which final's arms are compared, too (document, text); null for none."""
    scoring: Scoring = "squad"
    """F1 and EM: squad (official v1.1, English), words (punctuation of all scripts, articles kept) or characters."""
    shards: Annotated[int, Field(ge=1, le=1000)] = 4
    """Jobs per evaluation, each of which loads the model; the number changes no answer."""


class Gate(Section):
    """The ceiling check and the gate; F1 as a fraction."""

    threshold: Threshold = 0.70
    """Phase 1's F1 at or above which Phase 2 is skipped; the uncompressed text must reach it too."""
    failing: Threshold = 0.50
    """Phase 1's F1 below which it is failing rather than partial; at most the threshold."""
    override_ceiling: bool = False
    """Train even if the uncompressed text is below the threshold; the verdict shows it."""
    force_phase2: bool = False
    """Train Phase 2 and its control even if the gate passed."""


class Verdict(Section):
    """The plan's reconstruction criteria."""

    cosine: Annotated[float, Field(ge=-1, le=1)] = 0.90
    """Cosine similarity that a reconstruction must exceed."""
    fvu: Annotated[float, Field(ge=0, le=10)] = 0.50
    """Fraction of variance unexplained that it must stay below."""


class Statistics(Section):
    """Confidence intervals."""

    resamples: Annotated[int, Field(ge=200, le=10**6)] = 2000
    """Bootstrap resamples per interval."""
    seed: Seed = 0
    """Seed of the resampling."""


Megabytes = Annotated[int, Field(ge=100, le=10**7)]
Minutes = Annotated[int, Field(ge=1, le=30 * 24 * 60)]


class Job(Section):
    """What each job of a stage requests on its first attempt; attempt n requests n times the memory and time."""

    threads: Annotated[int, Field(ge=1, le=1024)]
    """CPU threads."""
    mem_mb: Megabytes
    """Memory in MB on the first attempt."""
    runtime: Minutes
    """Minutes on the first attempt."""
    gpu: Annotated[int, Field(ge=0, le=64)]
    """GPUs that a job reserves; 0 runs on the CPU. Phase 2 computes on all of them, the other programs on one."""


class Resources(Section):
    """Threads, memory, minutes and GPUs per kind of job. A GPU stage with gpu: 0 runs on the CPU."""

    max_mem_mb: Megabytes | None = None
    """Upper bound for retries: the largest node's memory in MB; null for no limit."""
    max_runtime: Minutes | None = None
    """Upper bound for retries: the partition's time limit in minutes; null for no limit."""
    gpu_model: Annotated[str, Field(pattern=r"^[a-zA-Z0-9_.]+$", max_length=100)] | None = None
    """GPU model that all GPU stages request, as Slurm names it ("h100"), so that arms compare; null for any."""
    prepare: Job = Job(threads=2, mem_mb=8_000, runtime=30, gpu=0)
    """Data preparation and token counts."""
    compression: Job = Job(threads=8, mem_mb=16_000, runtime=60, gpu=0)
    """The embedding table and the compressors."""
    phase1: Job = Job(threads=8, mem_mb=32_000, runtime=120, gpu=1)
    """Phase 1."""
    phase2: Job = Job(threads=8, mem_mb=64_000, runtime=360, gpu=1)
    """Phase 2 and its control."""
    evaluate: Job = Job(threads=8, mem_mb=64_000, runtime=120, gpu=1)
    """Generation of answers."""
    reconstruction: Job = Job(threads=8, mem_mb=32_000, runtime=60, gpu=0)
    """Reconstruction metrics."""


class Tuning(Optimiser):
    """The tuning of a reader, besides its base and its questions; no section of the configuration."""

    method: Literal["lora", "full"] = "lora"
    """LoRA, or all weights."""
    rank: Size = 16
    """Rank of the LoRA matrices."""
    lora_alpha: Size = 32
    """LoRA's scale times its rank."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Dropout on the LoRA matrices' inputs."""
    epochs: Size = 2
    """Passes over the sequences."""
    batch_size: Size = 8
    """Sequences per step; a sequence is a paragraph with its questions."""
    questions: Size = 8
    """Most questions behind one context."""
    max_tokens: Size = 1024
    """Longest sequence; longer ones are cut into several."""
    precision: Literal["float32", "bfloat16"] = "bfloat16"
    """dtype of the matrix products; weights that are trained are kept in float32."""
    seed: Seed = 0
    """Seed of the LoRA matrices, the order, the dropout and the held-out articles."""
    lr: LearningRate = 7e-4
    """Peak learning rate of AdamW."""


class Configuration(Section):
    """LatentWire Stage 1: a whole experiment. An overlay names only what it changes."""

    experiment: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=100)] = "llama-3.1-8b-squad"
    """Name of the experiment; its results go to `results/<experiment>/`."""
    compress_dims: Annotated[list[Annotated[int, Field(ge=1, le=2**16)]], Field(min_length=1), *Unique] = [512]
    """Code dimensions K, at most the embedding dimension; the first is the primary test, the others exploratory."""
    seeds: Seeds = [0, 1, 2]
    """Training seeds (data order); the gate and the verdict average over them."""
    exploratory: Exploratory = Exploratory()
    model: Model = Model()
    data: Data = Data()
    pca: Pca = Pca()
    adapter: AdapterSettings = AdapterSettings()
    phase1: Phase1 = Phase1()
    phase2: Phase2 = Phase2()
    codecs: dict[CodecName, Name] = {}
    """Codecs of your own, which become arms: each arm's name and its Python file."""
    evaluate: Evaluate = Evaluate()
    gate: Gate = Gate()
    verdict: Verdict = Verdict()
    statistics: Statistics = Statistics()
    device: Literal["auto", "cpu"] = "auto"
    """auto: CUDA in the stages that request a GPU in resources; cpu: the CPU in all of them."""
    resources: Resources = Resources()
