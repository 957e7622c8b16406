"""The frozen language model: configuration, tokenizer and weights, local or from the hub."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import AutoConfig, AutoTokenizer, PretrainedConfig

from latentwire.abilities import Lengths, Look, declared_context, look_at, refusals, require_served
from latentwire.configuration import content_identity
from latentwire.errors import InputError
from latentwire.hub import unavailable
from latentwire.weights import fetch, require_whole

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def load_config(model: str, revision: str | None = None) -> PretrainedConfig:
    """The model's configuration.

    Raises:
        InputError: it is out of reach or unusable, or says that the model can't serve.
    """
    try:
        fetch(model, "config.json", revision)
    except FileNotFoundError as error:
        raise InputError(f"{model!r} (model.path) has no config.json: not a Hugging Face model") from error
    try:
        config = AutoConfig.from_pretrained(model, revision=revision, trust_remote_code=False)
    except Exception as error:  # wrong types in a configuration raise whatever they hit first
        raise unavailable("model", model, revision, error) from error
    if (refused := next(refusals(config.to_dict()), None)) is not None:
        raise InputError(f"{model!r}: {refused}")
    return config


def model_identity(model: str, revision: str | None, dtype: str, device: torch.device) -> list[str | None]:
    """What a loaded model's outputs depend on: its content (on the hub its name and commit), dtype, and device."""
    return [content_identity(Path(model)), revision, dtype, device.type]


def load_tokenizer(model: str, revision: str | None = None) -> Any:
    """The model's tokenizer; its padding token falls back to EOS.

    Raises:
        InputError: it is out of reach or malformed.
    """
    load_config(model, revision)
    try:
        tokenizer = AutoTokenizer.from_pretrained(model, revision=revision, trust_remote_code=False)
    except Exception as error:  # a malformed tokenizer.json is a bare Exception
        raise unavailable("model", model, revision, error) from error
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def control_tokens(tokenizer: Any) -> dict[int, str]:
    """The tokens that no text is made of, by their ids."""
    special = dict(zip(tokenizer.all_special_ids, tokenizer.all_special_tokens, strict=True))
    return {token: added.content for token, added in tokenizer.added_tokens_decoder.items() if added.special} | special


def added_names(tokenizer: Any) -> dict[int, str]:
    """Tokens that were added to the vocabulary by their names, which control tokens need not be; no white space."""
    added = {token: own.content for token, own in tokenizer.added_tokens_decoder.items()}
    return {token: name for token, name in added.items() if name.strip()}


def context_length(model: str, revision: str | None = None) -> int:
    """The longest sequence that the model was made for, in tokens."""
    return declared_context(load_config(model, revision).to_dict()) or 2**31


def look(model: str, revision: str | None = None, lengths: Lengths | None = None) -> Look:
    """What the model can serve, from its configuration and its class; no weight is read or downloaded.

    Args:
        model, revision: local model directory, or name on the hub with a commit.
        lengths: of the prompts and answers that it is to serve, if they are known.

    Raises:
        InputError: it is out of reach or unusable, or can't serve.
    """
    try:
        return look_at(load_config(model, revision), lengths)
    except InputError as error:
        raise error if repr(model) in str(error) else InputError(f"{model!r}: {error}") from None


def load_model(model: str, revision: str | None, dtype: str, device: torch.device) -> Any:
    """The frozen model in evaluation mode, without gradients on its weights.

    Raises:
        InputError: it is out of reach or can't be loaded, its weights are not safetensors, some are missing or not
            finite.
    """
    from transformers import AutoModelForCausalLM  # with what follows from it, seconds: configurations need none of it

    from latentwire.attention import ROWS_NOT_EMPTY

    load_config(model, revision)
    try:
        loaded, found = AutoModelForCausalLM.from_pretrained(
            model,
            revision=revision,
            dtype=DTYPES[dtype],
            trust_remote_code=False,
            use_safetensors=True,
            output_loading_info=True,
        )
    except (
        Exception
    ) as error:  # missing packages, shapes that do not fit, files that were cut short: dozens of classes
        if isinstance(error, SafetensorError):  # which names no file
            require_whole(model, revision)
        raise unavailable("model", model, revision, error) from error
    # The library would fill them with random numbers.
    if missing := sorted(found["missing_keys"]):
        names = ", ".join(missing[:5]) + (", …" if len(missing) > 5 else "")
        raise InputError(
            f"{model!r} (model.path) lacks {len(missing)} weights of {type(loaded).__name__}: {names}; it may be a "
            "base model without its head, or the checkpoint of another class"
        )
    broken = [name for name, own in loaded.named_parameters() if not own.sum(dtype=torch.float32).isfinite()]
    if broken:
        raise InputError(f"{model!r} (model.path): weights are not finite in {dtype}: {', '.join(broken[:5])}")
    require_served(loaded)
    if loaded.config._attn_implementation == "sdpa":
        loaded.set_attn_implementation(ROWS_NOT_EMPTY)
    return loaded.to(device).eval().requires_grad_(False)
