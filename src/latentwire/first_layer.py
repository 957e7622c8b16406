"""What the first layer reads of an embedding: the normalised row, through its queries', keys' and values' projections.

Shape suffixes: D embedding dimensions, E dimensions of queries, keys and values together.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from latentwire.embeddings import read_parameter
from latentwire.lm import load_config


def first_layer_reading(model: str, revision: str | None = None) -> torch.Tensor | None:
    """M ``[D, D]``, float32: uᵀMu is the squared size of what the first layer's attention makes of a row u.

    Rows count at a root mean square of 1, to which the layer normalises them but for its epsilon. With g the norm's
    gain and W the stacked projections of queries, keys and values, M = diag(g) Wᵀ W diag(g); biases cancel in errors
    and are left out.

    Args:
        model: local model directory, or name on the hub.
        revision: of the hub repository.

    Returns:
        M, or None if the first layer is no RMSNorm before separate projections.

    Raises:
        InputError: the model is out of reach, or lacks these weights.
    """
    from transformers import AutoModelForCausalLM

    with torch.device("meta"):
        built = AutoModelForCausalLM.from_config(load_config(model, revision), trust_remote_code=False)
    try:
        layer = built.get_decoder().layers[0]
        norm, parts = layer.input_layernorm, [getattr(layer.self_attn, f"{name}_proj") for name in "qkv"]
    except (AttributeError, TypeError, IndexError):
        return None
    if not all(isinstance(part, nn.Linear) for part in parts) or [name for name, _ in norm.named_parameters()] != [
        "weight"
    ]:
        return None
    names = {id(parameter): name for name, parameter in built.named_parameters()}

    def stored(module: Any) -> torch.Tensor:
        name = names[id(module.weight)]
        return read_parameter(model, revision, name, built.base_model_prefix, "first layer").float()

    gain_D = _gain(norm, stored(norm))
    if gain_D is None:
        return None
    weight_ED = torch.cat([stored(part) for part in parts]) * gain_D
    return weight_ED.T @ weight_ED


@torch.no_grad()
def _gain(norm: nn.Module, weight_D: torch.Tensor) -> torch.Tensor | None:
    """The gain of an RMSNorm with this weight (some add 1 to it), from what the module does; None for another norm."""
    norm = norm.to_empty(device="cpu").float()
    norm.load_state_dict({"weight": weight_D})
    gain_D: torch.Tensor = norm(torch.ones_like(weight_D))
    probe_D = torch.randn(len(weight_D), generator=torch.Generator().manual_seed(0)) + 1
    expected_D = gain_D * probe_D / probe_D.square().mean().sqrt()
    return gain_D if torch.allclose(norm(probe_D), expected_D, rtol=1e-3, atol=1e-5) else None
