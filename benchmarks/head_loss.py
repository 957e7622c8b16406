"""Cross-entropy through a frozen output head: loss and the hidden states' gradient, three ways.

    .venv/bin/python benchmarks/head_loss.py --width 576 --vocab 49152    # SmolLM2-135M's head

Ours (logits in blocks, the gradient made beside the loss), PyTorch's ``linear_cross_entropy``, and all logits at once.
All three are compared with float64 on the first tokens. The floor is two matrix products, logits and gradient, at the
machine's own rate.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import _machine
import torch
import torch.nn.functional as F

from latentwire.cli import set_threads
from latentwire.training.head_loss import frozen_head_cross_entropy

Loss = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]
CHECKED = 64


def ours(hidden_ND: torch.Tensor, weight_VD: torch.Tensor, labels_N: torch.Tensor) -> torch.Tensor:
    """Phase 2's loss."""
    return frozen_head_cross_entropy(hidden_ND, weight_VD, labels_N).mean()


def pytorch(hidden_ND: torch.Tensor, weight_VD: torch.Tensor, labels_N: torch.Tensor) -> torch.Tensor:
    """PyTorch's loss in chunks, with its defaults."""
    return F.linear_cross_entropy(hidden_ND, weight_VD, labels_N, options=torch.nn.LinearCrossEntropyOptions())


def whole(hidden_ND: torch.Tensor, weight_VD: torch.Tensor, labels_N: torch.Tensor) -> torch.Tensor:
    """All logits in memory."""
    return F.cross_entropy(hidden_ND @ weight_VD.T, labels_N)


def gradient(loss: Loss, hidden_ND: torch.Tensor, weight_VD: torch.Tensor, labels_N: torch.Tensor) -> torch.Tensor:
    """The gradient of the hidden states."""
    own_ND = hidden_ND.detach().requires_grad_()
    (found_ND,) = torch.autograd.grad(loss(own_ND, weight_VD, labels_N), own_ND)
    return found_ND


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=1000, help="predicted tokens (default 1,000: 4 SQuAD prompts)")
    parser.add_argument("--vocab", type=int, default=49_152, help="rows of the head (default 49,152)")
    parser.add_argument("--width", type=int, default=576, help="its width (default 576)")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads (default 1)")
    parser.add_argument("--repeats", type=int, default=3, help="timed calls; the median counts (default 3)")
    return parser.parse_args()


def main() -> None:
    arguments = parse_arguments()
    set_threads(arguments.threads)
    _machine.print_heading()
    generator = torch.Generator().manual_seed(0)
    hidden_ND = torch.randn(arguments.tokens, arguments.width, generator=generator)
    weight_VD = torch.randn(arguments.vocab, arguments.width, generator=generator) / arguments.width**0.5
    labels_N = torch.randint(arguments.vocab, (arguments.tokens,), generator=generator)
    some = (hidden_ND[:CHECKED], weight_VD, labels_N[:CHECKED])
    expected_ND = gradient(whole, some[0].double(), weight_VD.double(), some[2])
    flops = 4 * arguments.tokens * arguments.vocab * arguments.width
    rows, times = [], {}
    for loss in (ours, pytorch, whole):
        times[loss] = _machine.seconds(
            lambda loss=loss: gradient(loss, hidden_ND, weight_VD, labels_N), arguments.repeats
        )
        error = float((gradient(loss, *some).double() - expected_ND).norm() / expected_ND.norm())
        rows.append([loss.__name__, f"{times[loss]:.2f}", f"{flops / times[loss] / 1e9:.0f}", f"{error:.0e}"])
    print(_machine.table(["loss and gradient", "s", "GFLOP/s of two products", "relative error"], rows))
    ratios = [f"{times[other] / times[ours]:.1f}" for other in (pytorch, whole)]
    print(f"\nOurs is {ratios[0]} times as fast as PyTorch's and {ratios[1]} times as fast as all logits at once.")


if __name__ == "__main__":
    main()
