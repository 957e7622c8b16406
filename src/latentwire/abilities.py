"""What a language model can serve: one look at its configuration, and at its class before any weight is read.

The model has to read embeddings in place of token ids, in generation and in Phase 2, which reads its layers below the
output head and follows the head in blocks. Fast to import: the Snakefile asks about local configurations.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from latentwire.errors import InputError, said

if TYPE_CHECKING:
    from transformers import PretrainedConfig

# How configurations say that embeddings are multiplied after the look-up.
EMBEDDING_SCALES = ("embedding_multiplier", "embedding_scale", "scale_emb", "scale_embedding")
# How they say that logits are rescaled behind the output head.
LOGIT_SCALES = ("final_logit_softcapping", "logits_scaling", "logit_scale")
# How they call the longest sequence, with its answer.
CONTEXTS = ("max_position_embeddings", "n_positions", "max_seq_len", "max_sequence_length", "seq_length", "n_ctx")
# How they call the width of their embeddings; some have another one behind it.
WIDTHS = ("word_embed_proj_dim", "hidden_size", "n_embd", "n_embed", "d_model")
# Under which they say that the weights are stored in a quantised form.
QUANTISED = ("quantization_config", "compression_config")
ANOTHER = "choose another model (model.path)"


@dataclass(frozen=True)
class Lengths:
    """The longest prompt that a model is to read and the longest answer that it is to write behind it, in tokens."""

    prompt: int
    answer: int


@dataclass(frozen=True)
class Look:
    """What one look at a model has found.

    Attributes:
        table: name of the input embeddings' parameter.
        prefix: of the base model in the names of parameters, which checkpoints may leave out.
        width: of the embeddings, D.
    """

    table: str
    prefix: str
    width: int


def refusals(config: Mapping[str, Any], lengths: Lengths | None = None) -> Iterator[str]:
    """Why a model with this configuration can't serve; nothing if its class decides.

    Args:
        config: as in ``config.json``.
        lengths: of what it is to serve, if they are known.
    """
    kind = config.get("model_type")
    yield from _malformed(config)
    if config.get("is_encoder_decoder") is True:
        yield f"{kind} has an encoder; the experiment is about decoders alone: {ANOTHER}"
    for part in _parts(config):
        for name in QUANTISED:
            if part.get(name):
                yield f"{kind} is a quantised checkpoint ({name}), not supported: take the one that it was made from"
        if "gemma" in str(part.get("model_type")) or any(_rescales(part.get(name)) for name in EMBEDDING_SCALES):
            yield f"{kind} rescales embeddings after the look-up, which is not supported: {ANOTHER}"
        for name in LOGIT_SCALES:
            if _rescales(part.get(name)):
                yield f"{kind} rescales its logits ({name}), which Phase 2 does not support: {ANOTHER}"
    if lengths is not None and (misfit := does_not_fit(lengths, declared_context(config))):
        yield misfit


def does_not_fit(lengths: Lengths, context: int | None) -> str:
    """What is wrong with a prompt and an answer of these lengths in a context; empty if nothing is.

    Behind its context a model has no positions, or such that it was never trained on.
    """
    if context is None or lengths.prompt + lengths.answer <= context:
        return ""
    return (
        f"a prompt of {lengths.prompt} tokens (data.max_prompt_tokens) and an answer of {lengths.answer} "
        f"(evaluate.max_new_tokens) do not fit into the model's context of {context} tokens: lower one of them"
    )


def declared_context(config: Mapping[str, Any]) -> int | None:
    """The longest sequence that a model's configuration declares, in tokens; None if it does not."""
    return _declared(config, CONTEXTS)


def declared_width(config: Mapping[str, Any]) -> int | None:
    """The width of the embeddings that a model's configuration declares; None if it does not."""
    return _declared(config, WIDTHS)


def _parts(config: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """A configuration, and those of the decoder that it may hold."""
    yield config
    yield from (part for name in ("text_config", "decoder") if isinstance(part := config.get(name), Mapping))


def _declared(config: Mapping[str, Any], names: tuple[str, ...]) -> int | None:
    values = (part.get(name) for part in _parts(config) for name in names)
    return next((value for value in values if type(value) is int and value > 0), None)


def _malformed(config: Mapping[str, Any]) -> Iterator[str]:
    for part in _parts(config):
        for name in (*CONTEXTS, *WIDTHS):
            if (value := part.get(name)) is not None and type(value) is not int:
                yield f"{name} should be a whole number, not {value!r:.80}: mend its config.json, or {ANOTHER}"


def _rescales(setting: Any) -> bool:
    """Whether this value changes what it is about: a factor, or a switch."""
    return setting is True or setting not in (None, False, 1)


def look_at(config: PretrainedConfig, lengths: Lengths | None = None) -> Look:
    """What a causal language model can serve, from its configuration and its class.

    The model is built without memory for its weights.

    Args:
        config: the model's.
        lengths: of what it is to serve, if they are known.

    Raises:
        InputError: it can't serve; says what it lacks.
    """
    import torch
    from transformers import AutoModelForCausalLM

    if (refused := next(refusals(config.to_dict(), lengths), None)) is not None:
        raise InputError(refused)
    try:
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(config, trust_remote_code=False)
    except Exception as error:  # no such class, missing packages, sizes that do not fit: whatever its code hits first
        raise InputError(
            f"{config.model_type} can't be built as a causal language model ({said(error)}): {ANOTHER}"
        ) from None
    require_served(model)
    table = model.get_input_embeddings()
    own = next(own for own, parameter in model.named_parameters() if parameter is table.weight)
    return Look(own, model.base_model_prefix, table.weight.shape[1])


def require_served(model: Any) -> None:
    """Refuse a model whose configuration or class says that it can't serve.

    Args:
        model: a Hugging Face causal language model; its weights are not looked at.

    Raises:
        InputError: says what the class lacks.
    """
    from torch import nn

    if (refused := next(refusals(model.config.to_dict()), None)) is not None:
        raise InputError(refused)
    name = type(model).__name__
    if "inputs_embeds" not in inspect.signature(model.prepare_inputs_for_generation).parameters:
        raise InputError(f"{name} generates from token ids alone, not from embeddings: {ANOTHER}")
    if model.base_model is model or model.get_output_embeddings() is None:
        raise InputError(f"{name} does not tell its layers from its output head, which Phase 2 needs: {ANOTHER}")
    table = model.get_input_embeddings()
    if not isinstance(table, nn.Embedding):
        raise InputError(f"{name}'s input embeddings are no table ({type(table).__name__}): {ANOTHER}")
