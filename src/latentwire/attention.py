"""What tokens of a row attend to: attention without empty rows, without copies, and within packed prompts.

Shape suffixes: B batch, H heads, G heads of keys and values, Q queries, K keys, T tokens, E numbers per head.
"""

from __future__ import annotations

import inspect
from typing import Any, cast

import torch
from transformers import AttentionInterface, AttentionMaskInterface, DynamicCache
from transformers.cache_utils import DynamicLayer
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

# The attention of loaded models: PyTorch's, with a mask in which every position attends to something.
ROWS_NOT_EMPTY = "sdpa_rows_not_empty"


def takes_positions(model: Any) -> bool:
    """Whether the model is told the position of each token, rather than counting them itself."""
    return "position_ids" in inspect.signature(model.forward).parameters


def attends_by_position(model: Any) -> bool:
    """Whether what a token makes of others depends on the positions that the model is told, not on its place.

    Then padding may stand between tokens, and prompts behind each other in one row. Layers that look a fixed number of
    places back are out. So are rotary frequencies that depend on how much is read at once.
    """
    config = model.config.get_text_config(decoder=True)
    # GPT-Neo names its local layers in a setting of its own, which the cache does not know.
    local = "local" in getattr(config, "attention_layers", ())
    rope = getattr(config, "rope_parameters", None) or {}
    kinds = {own.get("rope_type") for own in (rope, *rope.values()) if isinstance(own, dict)}
    return (
        takes_positions(model)
        and not local
        and not kinds & {"dynamic", "longrope"}
        and all(type(layer) is DynamicLayer for layer in DynamicCache(config=config).layers)
    )


def _mask_without_empty_rows(*arguments: Any, **options: Any) -> torch.Tensor | None:
    """transformers' mask ``[B, 1, Q, K]``, in which a padded position, which attends to nothing, attends to itself.

    Kernels differ in what they make of a row without any position, and a value that is not a number would reach the
    other positions through the next layer.
    """
    mask = sdpa_mask(*arguments, **options)
    if mask is None or mask.shape[-2] == 1:  # a new token attends to itself
        return mask
    queries, keys = mask.shape[-2:]
    own = torch.arange(keys, device=mask.device) == torch.arange(keys - queries, keys, device=mask.device)[:, None]
    return mask | (own & ~mask.any(dim=-1, keepdim=True))


def grouped_attention(
    query_BHQE: torch.Tensor, key_BGKE: torch.Tensor, value_BGKE: torch.Tensor, mask_B1QK: torch.Tensor, scale: float
) -> torch.Tensor:
    """Attention of H heads of which H/G share each of G keys and values, without copies of these.

    The heads that share a key stand as positions of one query.

    Args:
        query_BHQE: queries at Q positions; E numbers per head.
        key_BGKE, value_BGKE: keys and values at K positions.
        mask_B1QK: True where a position is attended to, or what is added to the scores.
        scale: of the scores.

    Returns:
        ``[B, Q, H, E]``.
    """
    batch, heads, queries, width = query_BHQE.shape
    groups, keys = key_BGKE.shape[1:3]
    sharing = heads // groups
    mask = mask_B1QK[:, :, None].expand(-1, -1, sharing, -1, -1).reshape(-1, 1, sharing * queries, keys)
    out = torch.nn.functional.scaled_dot_product_attention(
        query_BHQE.reshape(batch, groups, sharing * queries, width), key_BGKE, value_BGKE, attn_mask=mask, scale=scale
    )
    return out.reshape(batch, heads, queries, -1).transpose(1, 2).contiguous()


def packed_attention(
    query_1HTE: torch.Tensor,
    key_1GTE: torch.Tensor,
    value_1GTE: torch.Tensor,
    ends: torch.Tensor,
    longest: int,
    scale: float,
) -> torch.Tensor:
    """Causal attention within each of several sequences that stand in one row, by a kernel that sees no other pairs.

    Args:
        query_1HTE: queries of H heads at T positions; E numbers per head.
        key_1GTE, value_1GTE: keys and values of G heads.
        ends: where each sequence begins, and T; int32.
        longest: positions of the longest sequence.
        scale: of the scores.

    Returns:
        ``[1, T, H, E]``.
    """
    from torch.nn.attention.varlen import varlen_attn  # CUDA's alone

    sharing = query_1HTE.shape[1] // key_1GTE.shape[1]
    key_THE, value_THE = (
        own[0].repeat_interleave(sharing, dim=0).transpose(0, 1).contiguous() for own in (key_1GTE, value_1GTE)
    )
    query_THE = query_1HTE[0].transpose(0, 1).contiguous()
    out_THE = varlen_attn(
        query_THE, key_THE, value_THE, ends, ends, longest, longest, scale=scale, window_size=(-1, 0)
    )
    return cast("torch.Tensor", out_THE)[None]


def _attention(
    module: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, attention_mask: Any, **options: Any
) -> tuple[torch.Tensor, None]:
    """The library's on the CPU, to the bit; elsewhere it would copy keys and values, and read a mask of all pairs."""
    if attention_mask is None or query.device.type == "cpu":
        return sdpa_attention_forward(module, query, key, value, attention_mask, **options)
    scale = options.get("scaling") or query.shape[-1] ** -0.5
    ends = options.get("cu_seq_lens_q")
    if ends is not None and query.dtype in (torch.bfloat16, torch.float16):
        return packed_attention(query, key, value, ends, options["max_length_q"], scale), None
    return grouped_attention(query, key, value, attention_mask, scale), None


AttentionInterface.register(ROWS_NOT_EMPTY, _attention)
AttentionMaskInterface.register(ROWS_NOT_EMPTY, _mask_without_empty_rows)
