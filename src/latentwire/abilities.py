"""What a language model can serve: one look at its configuration, and at its class before any weight is read.

The model has to read embeddings in place of token ids, in generation and in Phase 2, which reads its layers below the
output head and follows the head in blocks. Fast to import: the Snakefile asks about local configurations.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from latentwire.errors import InputError

if TYPE_CHECKING:
    from transformers import PretrainedConfig

# How configurations say that embeddings are multiplied after the look-up.
EMBEDDING_SCALES = ("embedding_multiplier", "embedding_scale", "scale_emb", "scale_embedding")
# How they say that logits are rescaled behind the output head.
LOGIT_SCALES = ("final_logit_softcapping", "logits_scaling", "logit_scale")
ANOTHER = "choose another model (model.path)"


def refusals(config: Mapping[str, Any]) -> Iterator[str]:
    """Why a model with this configuration can't serve; nothing if its class decides.

    Args:
        config: as in ``config.json``.
    """
    kind = config.get("model_type")
    if config.get("is_encoder_decoder") is True:
        yield f"{kind} has an encoder; the experiment is about decoders alone: {ANOTHER}"
    nested = config.get("text_config")
    for part in (config, nested) if isinstance(nested, Mapping) else (config,):
        if "gemma" in str(part.get("model_type")) or any(_rescales(part.get(name)) for name in EMBEDDING_SCALES):
            yield f"{kind} rescales embeddings after the look-up, which is not supported: {ANOTHER}"
        for name in LOGIT_SCALES:
            if _rescales(part.get(name)):
                yield f"{kind} rescales its logits ({name}), which Phase 2 does not support: {ANOTHER}"


def _rescales(setting: Any) -> bool:
    """Whether this value changes what it is about: a factor, or a switch."""
    return setting is True or setting not in (None, False, 1)


def table_parameter(config: PretrainedConfig) -> tuple[str, str]:
    """Where a causal language model keeps its input embeddings: the parameter's name, and its base model's prefix.

    The model is built without memory for its weights.

    Raises:
        InputError: the class can't serve; says what it lacks.
    """
    import torch
    from transformers import AutoModelForCausalLM

    try:
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(config, trust_remote_code=False)
    except Exception as error:  # no such class, missing packages, sizes that do not fit: whatever its code hits first
        said = str(error).strip().split("\n", 1)[0][:200]
        raise InputError(
            f"{config.model_type} can't be built as a causal language model ({said}): {ANOTHER}"
        ) from None
    require_served(model)
    table = model.get_input_embeddings()
    own = next(own for own, parameter in model.named_parameters() if parameter is table.weight)
    return own, model.base_model_prefix


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
