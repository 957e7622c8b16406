"""The first minutes on a GPU: is it right, what does each stage cost, and where does the time go.

    PYTHONPATH=src python benchmarks/gpu.py --output gpu.jsonl                 # CUDA, Llama-3.1-8B's shapes
    PYTHONPATH=src python benchmarks/gpu.py --output gpu.jsonl --shapes tiny   # any machine: every part runs

One JSON line per part, printed and written when the part is done; a part that fails says why and the next one runs.
Weights are random, so nothing is downloaded; prompts have the lengths of real ones (squad_lengths.json.gz: of 10,000
training prompts of SQuAD and of half its development set, in Llama's chat format), are padded and masked as in the
experiment, and are embeddings. A random model never ends an answer: every one has all its tokens. About five minutes
on an H100; torch, transformers, numpy and the package's source are enough.

Shape suffixes: B batch, L length, U token types, D embedding dimensions, K code dimensions, N predicted tokens.
"""

from __future__ import annotations

import argparse
import contextlib
import gzip
import json
import logging
import os
import statistics
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from functools import cached_property
from pathlib import Path
from typing import Any

import _machine
import numpy as np
import torch
import torch.nn.functional as F
import transformers
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers import LlamaConfig, LlamaForCausalLM

from latentwire.adapter import Adapter
from latentwire.attention import ROWS_NOT_EMPTY
from latentwire.cli import set_threads
from latentwire.compression.compressor import EmbeddingCompressor
from latentwire.data.tokenizer import build_tokenizer
from latentwire.device import described
from latentwire.evaluation.divergence import DivergenceReader, ForcedPrompt, measured_batches
from latentwire.evaluation.generate import Decoder
from latentwire.evaluation.prefixes import batches_by_prefix
from latentwire.evaluation.rows import SplitRows
from latentwire.lm import load_model, load_tokenizer
from latentwire.packing import Layout, prompt_batch
from latentwire.processes import Processes
from latentwire.settings import Optimiser
from latentwire.training.head_loss import frozen_head_cross_entropy
from latentwire.training.loop import make_optimiser
from latentwire.training.memory import LossInParts
from latentwire.training.objectives import TokenRows, autocast, unique_tokens, weighted_error
from latentwire.training.phase2 import PromptScorer, prompt_inputs

HERE = Path(__file__).parent
OPTIMISER = Optimiser(lr=1e-4, weight_decay=0.01, warmup_fraction=0.05, gradient_clip=1.0)
Prompts = list[np.ndarray]
# Of a training prompt those that are not predicted, on average (squad_lengths.json.gz); of an answer, a guess.
TEMPLATE_TOKENS, ANSWER_TOKENS = 77, 4


@dataclass(frozen=True)
class Shapes:
    """A model's sizes, and by how much real prompts are cut short."""

    vocab: int
    width: int
    mlp: int
    layers: int
    heads: int
    kv_heads: int
    code: int
    new_tokens: int
    cut: int

    @property
    def products(self) -> int:
        """Weights of all matrix products of the layers."""
        kept = self.width * self.kv_heads // self.heads
        return self.layers * self.width * (2 * self.width + 2 * kept + 3 * self.mlp)


SHAPES = {
    "llama-3.1-8b": Shapes(128_256, 4096, 14_336, 32, 32, 8, 512, 32, 1),
    "tiny": Shapes(4000, 64, 128, 2, 8, 2, 8, 8, 8),
}


class Bench:
    """The model, prompts and figures of one run."""

    def __init__(self, shapes: Shapes, output: Path) -> None:
        self.shapes, self.output = shapes, output
        self.tiny = shapes.cut > 1
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.gpu = self.device.type == "cuda"
        self.dtype = torch.bfloat16 if self.gpu else torch.float32
        self.lengths = json.loads(gzip.decompress((HERE / "squad_lengths.json.gz").read_bytes()))

    # Measuring

    def wait(self) -> None:
        """Until the device is done."""
        if self.gpu:
            torch.cuda.synchronize()

    def seconds(self, work: Callable[[], object], repeats: int = 5, warmup: int = 2) -> float:
        """Median seconds until the device is done."""

        def finished() -> None:
            work()
            self.wait()

        return _machine.seconds(finished, repeats, warmup=warmup)

    def peak_gib(self) -> float:
        """The most memory of the device since the last call."""
        if not self.gpu:
            return 0.0
        peak = torch.cuda.max_memory_allocated() / 2**30
        torch.cuda.reset_peak_memory_stats()
        return peak

    # What is measured on

    @cached_property
    def model(self) -> LlamaForCausalLM:
        """A random frozen model, made on the device so that no second copy is ever in memory."""
        config = LlamaConfig(
            vocab_size=self.shapes.vocab,
            hidden_size=self.shapes.width,
            intermediate_size=self.shapes.mlp,
            num_hidden_layers=self.shapes.layers,
            num_attention_heads=self.shapes.heads,
            num_key_value_heads=self.shapes.kv_heads,
            max_position_embeddings=8192,
        )
        torch.manual_seed(0)
        torch.set_default_dtype(self.dtype)
        with self.device:
            model = LlamaForCausalLM(config)
        torch.set_default_dtype(torch.float32)
        model.to(self.device).set_attn_implementation(ROWS_NOT_EMPTY)
        return model.eval().requires_grad_(False)

    @cached_property
    def rows(self) -> TokenRows:
        """Codes and rows of the token types that training prompts draw from."""
        compressor = EmbeddingCompressor(self.shapes.width, self.shapes.code)
        compressor.mean_D, compressor.scale = torch.zeros(self.shapes.width), torch.tensor(0.02)
        compressor.code_std_K, compressor.spectrum_D = torch.ones(self.shapes.code), torch.ones(self.shapes.width)
        basis_DK = torch.randn(self.shapes.width, self.shapes.code, generator=torch.Generator().manual_seed(0))
        compressor.components_KD = torch.linalg.qr(basis_DK).Q.T.contiguous()
        table_VD = self.model.get_input_embeddings().weight.detach()[: self.types].cpu()
        return TokenRows(table_VD, compressor.codes(table_VD), compressor, torch.arange(self.types), self.device)

    @property
    def types(self) -> int:
        """Token types that prompts draw from."""
        return min(self.shapes.vocab, 20_000)

    def adapter(self) -> Adapter:
        """At its start."""
        return Adapter.from_compressor(self.rows.compressor).to(self.device)

    def training(self, number: int, seed: int) -> tuple[Prompts, Prompts]:
        """Random training prompts and their label masks, with as many distinct tokens as real ones have."""
        rng = np.random.default_rng(seed)
        prompts, masks = [], []
        for index in rng.permutation(len(self.lengths["train"]))[:number]:
            length, predicted, distinct = (-(-own // self.shapes.cut) for own in self.lengths["train"][index])
            own = rng.integers(0, self.types, distinct)
            prompts.append(np.concatenate([own, rng.choice(own, max(0, length - distinct))])[:length])
            masks.append(np.arange(len(prompts[-1])) >= length - predicted)
        return prompts, masks

    def final(self) -> Prompts:
        """Random prompts of the split ``final``, in which questions about one paragraph begin alike."""
        rng, prompts = np.random.default_rng(1), []
        for shared, lengths in self.lengths["final"][: 12 if self.tiny else None]:
            beginning = rng.integers(0, self.types, shared // self.shapes.cut + 1)
            for length in lengths:
                rest = max(1, (length - shared) // self.shapes.cut)
                prompts.append(np.concatenate([beginning, rng.integers(0, self.types, rest)]))
        return prompts

    @cached_property
    def rebuilt(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Rows to read in place of token ids, and these ids."""
        return self.model.get_input_embeddings().weight[: self.types], torch.arange(self.types)

    def decoder(self, *, fixed_steps: bool, new_tokens: int | None = None) -> Decoder:
        """A decoding of the model."""
        return Decoder(self.model, build_tokenizer(), new_tokens or self.shapes.new_tokens, fixed_steps=fixed_steps)

    # Parts

    def environment(self) -> dict[str, Any]:
        """Versions, and the machine."""
        return {
            "device": described(self.device),
            "cpu": _machine.cpu_name(),
            "torch": torch.__version__,
            "transformers": transformers.__version__,
            "commit": _machine.commit() or os.environ.get("COMMIT"),
            "date": date.today().isoformat(),
        }

    def rates(self) -> dict[str, float]:
        """What bounds everything: matrix products, memory, launches."""
        size, bytes_ = (512, 2**20) if self.tiny else (8192, 2**30)
        a, b = (torch.randn(size, size, device=self.device, dtype=self.dtype) for _ in range(2))
        x = torch.empty(bytes_, device=self.device, dtype=torch.uint8)
        y, one = torch.empty_like(x), torch.zeros(1, device=self.device)
        return {
            "product_tflops": 2 * size**3 / self.seconds(lambda: a @ b, 10) / 1e12,
            "copy_tb_per_s": 2 * bytes_ / self.seconds(lambda: y.copy_(x), 10) / 1e12,
            "launch_us": 1e3 * self.seconds(lambda: [one.add_(1) for _ in range(1000)]),
        }

    def attention(self) -> dict[str, Any]:
        """Every kernel under a mask: rows that see nothing, gradients at a bad length, new shapes."""
        return {name: self._kernel(name) for name in ("CUDNN_ATTENTION", "EFFICIENT_ATTENTION", "MATH")}

    def _kernel(self, name: str) -> dict[str, Any] | str:
        def normal(*shape: int) -> torch.Tensor:
            return torch.randn(shape, device=self.device, dtype=self.dtype)

        def causal(length: int) -> torch.Tensor:
            return torch.ones(1, 1, length, length, dtype=torch.bool, device=self.device).tril()

        try:
            with sdpa_kernel([getattr(SDPBackend, name)]):
                mask = causal(40)
                mask[..., :7] = False
                read = F.scaled_dot_product_attention(*(normal(1, 4, 40, 128) for _ in range(3)), attn_mask=mask)
                query, key, value = (normal(1, 1, 704, 64) * scale for scale in (0.1, 0.1, 1.0))
                query[..., 0], key[..., 0] = 1.0, -960.0  # a small partition function
                query.requires_grad_()
                F.scaled_dot_product_attention(query, key, value, attn_mask=causal(704)).sum().backward()
                assert query.grad is not None
                return {
                    "empty_rows_finite": bool(read.isfinite().all()),
                    "gradient_finite_at_704": bool(query.grad.isfinite().all()),
                    "new_shape_ms": self._growing(name),
                    "known_shape_ms": self._growing(name),
                }
        except RuntimeError as error:
            return str(error).split("\n", 1)[0][:120]

    def _growing(self, name: str) -> float:
        lengths = range(200, 204 if name == "CUDNN_ATTENTION" else 220)
        keys = [torch.randn(8, 8, length, 128, device=self.device, dtype=self.dtype) for length in lengths]
        masks = [torch.ones(8, 1, 1, length, dtype=torch.bool, device=self.device) for length in lengths]
        self.wait()
        start = time.perf_counter()
        for key, mask in zip(keys, masks, strict=True):
            F.scaled_dot_product_attention(key[:, :, :1], key, key, attn_mask=mask)
        self.wait()
        return 1e3 * (time.perf_counter() - start) / len(lengths)

    def losses(self) -> dict[str, Any]:
        """Cross-entropy through the output head: in blocks, and of all logits at once."""
        number = 64 if self.tiny else 1231
        weight_VD = self.model.lm_head.weight
        hidden_ND = torch.randn(number, self.shapes.width, device=self.device, dtype=self.dtype)
        labels_N = torch.randint(0, self.shapes.vocab, (number,), device=self.device)
        exact_ND = hidden_ND.float().clone().requires_grad_()
        exact = F.cross_entropy(exact_ND @ weight_VD.float().T, labels_N)
        exact.backward()
        ways: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
            "blocks": lambda h_ND: frozen_head_cross_entropy(h_ND, weight_VD, labels_N).mean(),
            "all_logits": lambda h_ND: F.cross_entropy((h_ND @ weight_VD.T).float(), labels_N),
        }
        return {"loss_float32": exact.item()} | {
            name: self._loss(way, hidden_ND, exact, exact_ND) for name, way in ways.items()
        }

    def _loss(
        self,
        way: Callable[[torch.Tensor], torch.Tensor],
        hidden_ND: torch.Tensor,
        exact: torch.Tensor,
        exact_ND: torch.Tensor,
    ) -> dict[str, float]:
        self.peak_gib()
        own_ND = hidden_ND.clone().requires_grad_()
        loss = way(own_ND)
        loss.backward()
        assert own_ND.grad is not None and exact_ND.grad is not None
        return {
            "loss_error": abs(loss.item() / exact.item() - 1),
            "gradient_error": ((own_ND.grad - exact_ND.grad).norm() / exact_ND.grad.norm()).item(),
            "ms": 1e3 * self.seconds(lambda: way(hidden_ND.clone().requires_grad_()).backward()),
            "peak_gib": self.peak_gib(),
        }

    def rightness(self) -> dict[str, Any]:
        """Batches against prompts alone, embeddings against text; the embedded reader against the CPU."""
        prompts = self.training(6, seed=2)[0]
        alone, batch = self._logits_alone(prompts), self._logits_padded(prompts)
        text, embeddings, library = (
            self.decoder(fixed_steps=fixed).answers(prompts, *rebuilt)
            for fixed, rebuilt in ((True, ()), (True, self.rebuilt), (False, ()))
        )
        return {
            "padded_against_alone": (batch - alone).abs().max().item(),
            "spread_of_logits": alone.std().item(),
            "text_equals_embeddings": text == embeddings,
            "answers_as_the_librarys": sum(a == b for a, b in zip(text, library, strict=True)),
            "answers": len(prompts),
            "packed": self._packed(),
            "reader": self._reader(),
        }

    def _logits_alone(self, prompts: Prompts) -> torch.Tensor:
        with torch.no_grad():
            read = [self.model(torch.from_numpy(ids)[None].to(self.device), logits_to_keep=1) for ids in prompts]
        return torch.cat([one.logits[:, -1].float() for one in read])

    def _logits_padded(self, prompts: Prompts) -> torch.Tensor:
        ids_BL, mask_BL = (part.to(self.device) for part in self.decoder(fixed_steps=False)._padded(prompts))
        positions_BL = (mask_BL.cumsum(1) - 1).clamp_min(0)
        with torch.no_grad():
            read = self.model(ids_BL, attention_mask=mask_BL, position_ids=positions_BL, logits_to_keep=1)
        return read.logits[:, -1].float()

    def _packed(self) -> dict[str, float]:
        """How far the loss of packed prompts and its gradient are from those of padded ones, relatively."""
        prompts, masks = self.training(4, seed=5)
        scorer, (rows_UD, ids_U) = PromptScorer(self.model), self.rebuilt
        found = []
        for layout in (Layout(), scorer.layout):
            batch, own_UD = prompt_batch(prompts, masks, layout), rows_UD.clone().requires_grad_()
            loss = scorer.cross_entropy(prompt_inputs(own_UD, ids_U, batch.ids_BL), batch)
            loss.backward()
            assert own_UD.grad is not None
            found.append((loss.item(), own_UD.grad.float()))
        (padded, padded_UD), (packed, packed_UD) = found
        return {
            "loss": abs(packed / padded - 1),
            "gradient": ((packed_UD - padded_UD).norm() / padded_UD.norm()).item(),
        }

    def _reader(self) -> dict[str, int]:
        """Answers of the embedded reader in float32 that are the CPU's, over random prompts of its vocabulary."""
        folder = str(HERE.parent / "resources" / "reader")
        tokenizer, rng = load_tokenizer(folder), np.random.default_rng(3)
        prompts = [rng.integers(5, len(tokenizer) - 10, rng.integers(20, 90)) for _ in range(64)]
        answers = []
        for device in (torch.device("cpu"), self.device):
            decoder = Decoder(
                load_model(folder, None, "float32", device), tokenizer, 8, fixed_steps=device == self.device
            )
            answers.append(decoder.answers(prompts))
        return {"answers": len(prompts), "as_on_the_cpu": sum(a == b for a, b in zip(*answers, strict=True))}

    def phase1(self) -> dict[str, Any]:
        """A step of 32 prompts; what of it the host takes; three epochs of 10,000 prompts."""
        adapter = self.adapter()
        step = self._training_step(adapter)
        batches = [self.training(32, seed)[0] for seed in range(4)]
        turn = iter(range(10**9))

        def work() -> None:
            step(lambda: self._reconstruction(adapter, batches[next(turn) % len(batches)])[1])

        spent = self.seconds(work, 30 if not self.tiny else 3, warmup=5)
        types = statistics.mean(len(unique_tokens(batch)[0]) for batch in batches)
        profile = self._profile("phase1", work)
        return {"token_types": types, "step_ms": 1e3 * spent, "three_epochs_s": 939 * spent} | profile

    def _training_step(self, adapter: Adapter) -> Callable[[Callable[[], torch.Tensor]], None]:
        optimiser = make_optimiser(adapter, OPTIMISER)

        def step(loss_of: Callable[[], torch.Tensor]) -> None:
            optimiser.zero_grad(set_to_none=True)
            loss_of().backward()
            torch.nn.utils.clip_grad_norm_(adapter.parameters(), OPTIMISER.gradient_clip)
            optimiser.step()

        return step

    def _reconstruction(
        self, adapter: Adapter, prompts: Prompts
    ) -> tuple[tuple[torch.Tensor, torch.Tensor], torch.Tensor]:
        """Rebuilt rows with their token ids, and the loss."""
        ids_U, counts_U = unique_tokens(prompts)
        codes_UK, target_UD = self.rows.of(ids_U)
        with autocast(self.device):
            standardised_UD = adapter.standardised(codes_UK).float()
        rebuilt_UD = adapter.mean_D + adapter.scale * standardised_UD
        return (rebuilt_UD, ids_U), weighted_error(standardised_UD, target_UD, counts_U)

    def phase2(self) -> dict[str, Any]:
        """Steps of 8 prompts: naive, then as they are made; the share of the measured rate in 4N accounting."""
        size = 512 if self.tiny else 8192
        a, b = (torch.randn(size, size, device=self.device, dtype=self.dtype) for _ in range(2))
        rate = 2 * size**3 / self.seconds(lambda: a @ b, 10)
        figures: dict[str, Any] = {"product_tflops": rate / 1e12}
        figures["naive"] = self._phase2_steps(self._naive_loss, rate, cudnn=True, number=3 if self.gpu else 2)
        figures["padded"] = self._phase2_steps(
            self._our_loss(PromptScorer(self.model), Layout()), rate, cudnn=False, number=8
        )
        figures["ours"] = self._phase2_steps(self._our_loss(PromptScorer(self.model)), rate, cudnn=False, number=16)
        return figures

    def _phase2_steps(
        self, loss_of: Callable[[Adapter, Prompts, Prompts], torch.Tensor], rate: float, *, cudnn: bool, number: int
    ) -> dict[str, Any]:
        """Time of steps after each of their batches was seen once."""
        adapter = self.adapter()
        step = self._training_step(adapter)
        batches = [self.training(8, 100 + seed) for seed in range(number)]
        tokens = sum(len(ids) for prompts, _ in batches for ids in prompts)
        losses: list[float] = []

        def one(prompts: Prompts, masks: Prompts) -> None:
            loss = loss_of(adapter, prompts, masks)
            step(lambda: loss)
            losses.append(loss.item())

        def work() -> None:
            for prompts, masks in batches:
                one(prompts, masks)

        self.peak_gib()
        torch.backends.cuda.enable_cudnn_sdp(cudnn)
        start = time.perf_counter()
        work()
        self.wait()
        first = time.perf_counter() - start
        spent = self.seconds(work, 1, warmup=0) / number
        torch.backends.cuda.enable_cudnn_sdp(False)
        useful = 4 * self.shapes.products * tokens / number
        return {
            "first_pass_step_ms": 1e3 * first / number,
            "step_ms": 1e3 * spent,
            "tokens_per_step": tokens / number,
            "tflops_4n": useful / spent / 1e12,
            "share_of_product_rate": useful / spent / rate,
            "epoch_of_10000_prompts_s": 1250 * spent,
            "peak_gib": self.peak_gib(),
            "finite": bool(np.isfinite(losses).all()),
            "first_loss": losses[0],
        }

    def _naive_loss(self, adapter: Adapter, prompts: Prompts, masks: Prompts) -> torch.Tensor:
        """A padded batch, every kernel by default, all logits at once."""
        (rebuilt_UD, ids_U), reconstruction = self._reconstruction(adapter, prompts)
        length = max(map(len, prompts))
        ids_BL, labels_BL = (
            torch.zeros(len(prompts), length, dtype=torch.int64),
            torch.full((len(prompts), length), -100),
        )
        mask_BL = torch.zeros_like(ids_BL)
        for row, (ids, predicted) in enumerate(zip(prompts, masks, strict=True)):
            ids_BL[row, : len(ids)], mask_BL[row, : len(ids)] = torch.from_numpy(ids), 1
            labels_BL[row, : len(ids)] = torch.from_numpy(np.where(predicted, ids, -100))
        inputs_BLD = prompt_inputs(rebuilt_UD, ids_U, ids_BL).to(self.dtype)
        logits = self.model(inputs_embeds=inputs_BLD, attention_mask=mask_BL.to(self.device), use_cache=False).logits
        flat = labels_BL[:, 1:].flatten().to(self.device)
        return reconstruction + F.cross_entropy(logits[:, :-1].flatten(0, 1).float(), flat)

    def _our_loss(
        self, scorer: PromptScorer, layout: Layout | None = None
    ) -> Callable[[Adapter, Prompts, Prompts], torch.Tensor]:
        def loss_of(adapter: Adapter, prompts: Prompts, masks: Prompts) -> torch.Tensor:
            (rebuilt_UD, ids_U), reconstruction = self._reconstruction(adapter, prompts)
            labels = sum(int(np.count_nonzero(mask[1:])) for mask in masks)

            def cross_entropy(rows_UD: torch.Tensor, chosen: Sequence[int]) -> torch.Tensor:
                own = [prompts[index] for index in chosen], [masks[index] for index in chosen]
                batch = prompt_batch(*own, layout or scorer.layout)
                return scorer.cross_entropy(prompt_inputs(rows_UD, ids_U, batch.ids_BL), batch, "sum") / labels

            in_parts = LossInParts(Processes(), [len(ids) for ids in prompts])
            return reconstruction + in_parts(rebuilt_UD, range(len(prompts)), cross_entropy)

        return loss_of

    def worst_batch(self) -> dict[str, Any]:
        """Phase 2's memory at 8 prompts of 1,024 tokens, and at 16, which are two micro-batches."""
        return {f"prompts_{count}": self._worst_batch(count) for count in (8, 16)}

    def _worst_batch(self, count: int) -> dict[str, float]:
        length = 1024 // self.shapes.cut
        rng = np.random.default_rng(4)
        prompts = [rng.integers(0, self.types, length) for _ in range(count)]
        adapter = self.adapter()
        loss_of = self._our_loss(PromptScorer(self.model))
        self.peak_gib()
        masks = [np.arange(length) > 9] * count
        step = self._training_step(adapter)
        return {"step_ms": 1e3 * self.seconds(lambda: step(lambda: loss_of(adapter, prompts, masks)), 1, 1)} | {
            "peak_gib": self.peak_gib()
        }

    def generation(self) -> dict[str, Any]:
        """Reading a batch and one new token: the library's decoding, and in fixed steps."""
        prompts = self.final()
        ways = [(1, False), (32, False), (32, True), (128, True), (256, True)]
        return {
            f"{'fixed' if fixed else 'library'}_{size}": self._generation(prompts, size, fixed)
            for size, fixed in ([(1, False), (8, False), (8, True)] if self.tiny else ways)
        }

    def _generation(self, prompts: Prompts, size: int, fixed: bool) -> dict[str, float]:
        batches = batches_by_prefix(prompts, size)
        batch = [prompts[index] for index in batches[len(batches) // 2]]
        reader, decoder = (self.decoder(fixed_steps=fixed, new_tokens=new) for new in (1, None))
        self.peak_gib()
        read = self.seconds(lambda: reader.answers(batch, *self.rebuilt), 1, 1)
        whole = self.seconds(lambda: decoder.answers(batch, *self.rebuilt), 1, 1)
        return {
            "prompts": len(batch),
            "read_ms": 1e3 * read,
            "token_ms": 1e3 * (whole - read) / (self.shapes.new_tokens - 1),
            "ms_per_answer": 1e3 * whole / len(batch),
            "peak_gib": self.peak_gib(),
        }

    def arm(self) -> dict[str, float]:
        """All answers of one arm over ``final``, twice: with the shapes to capture, and without."""
        prompts = self.final()
        batches = batches_by_prefix(prompts, 256)
        decoder = self.decoder(fixed_steps=True)

        def work() -> None:
            for batch in batches:
                decoder.answers([prompts[index] for index in batch], *self.rebuilt)

        self.peak_gib()
        first, second = (self.seconds(work, 1, 0) for _ in range(2))
        return {
            "questions": len(prompts),
            "batches": len(batches),
            "first_s": first,
            "second_s": second,
            "peak_gib": self.peak_gib(),
        }

    def divergence(self) -> dict[str, Any]:
        """An arm's teacher-forced pass and its comparison with the original's, which costs one reading more."""
        prompts, rng = self.final(), np.random.default_rng(6)
        template, answer = (-(-tokens // self.shapes.cut) for tokens in (TEMPLATE_TOKENS, ANSWER_TOKENS))
        sampled = measured_batches(len(prompts), 1000)
        batches = [
            [
                ForcedPrompt(prompts[i], np.arange(len(prompts[i])) >= template, rng.integers(0, self.types, answer))
                for i in batch
            ]
            for batch in sampled[:: max(1, len(sampled) // 16)]
        ]
        reader, rows_UD = DivergenceReader(self.model), self.model.get_input_embeddings().weight[: self.types].cpu()
        same, moved = (SplitRows(torch.arange(self.types), own_UD) for own_UD in (rows_UD, 1.1 * rows_UD))
        self.peak_gib()
        read = self.seconds(lambda: [reader.hidden(batch, moved) for batch in batches], 1, 1)
        labels = [torch.from_numpy(np.concatenate([one.ids[one.predicted] for one in batch])) for batch in batches]
        texts, arms, exact = ([reader.hidden(own, rows) for own in batches] for rows in (None, moved, same))

        def compared(arms: Sequence[torch.Tensor]) -> list[float]:
            parts = zip(texts, arms, labels, strict=True)
            return [float(reader.compare(text, [arm], own)[0]["kl"].mean()) for text, arm, own in parts]

        compare = self.seconds(lambda: compared(arms), 1, 1)
        return {
            "tokens_per_batch": statistics.mean(sum(len(one.ids) for one in batch) for batch in batches),
            "read_ms": 1e3 * read / len(batches),
            "compare_ms": 1e3 * compare / len(batches),
            "arm_of_1000_s": len(measured_batches(1000, None)) * (read + compare) / len(batches),
            "largest_kl_of_the_same_rows": max(compared(exact)),
            "least_kl_of_other_rows": min(compared(arms)),
            "peak_gib": self.peak_gib(),
        }

    def host_waits(self) -> dict[str, Any]:
        """Where the host waits for the GPU, and how often: in a step of Phase 2, and in a batch of answers."""
        if not self.gpu:
            return {"not_measured": "without a CUDA device the host waits for nothing"}
        return {name: self._waits(work) for name, work in self._examples().items()}

    def _waits(self, work: Callable[[], object]) -> dict[str, int]:
        """Lines of code at which the host waited in one call after another."""
        work()
        self.wait()
        torch.cuda.set_sync_debug_mode("warn")
        try:
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                work()
        finally:
            torch.cuda.set_sync_debug_mode("default")
        places = [f"{Path(own.filename).name}:{own.lineno}" for own in caught if "synchroniz" in str(own.message)]
        return dict(Counter(places).most_common())

    def profile(self) -> dict[str, Any]:
        """Where the time goes: of a step of Phase 2, and of a batch of answers."""
        return {name: self._profile(name, work) for name, work in self._examples().items()}

    def _examples(self) -> dict[str, Callable[[], object]]:
        """A step of Phase 2, and a batch of answers."""
        adapter, (prompts, masks) = self.adapter(), self.training(8, 100)
        step, loss_of = self._training_step(adapter), self._our_loss(PromptScorer(self.model))
        final = self.final()
        batches = batches_by_prefix(final, 256)
        batch = [final[index] for index in batches[len(batches) // 2]]
        decoder = self.decoder(fixed_steps=True)
        return {
            "phase2": lambda: step(lambda: loss_of(adapter, prompts, masks)),
            "answers": lambda: decoder.answers(batch, *self.rebuilt),
        }

    def _profile(self, name: str, work: Callable[[], object]) -> dict[str, Any]:
        """Seconds of the device's kernels and of the host in one call after another; a table beside the output."""
        from torch.profiler import ProfilerActivity, profile

        work()
        self.wait()
        activities = [ProfilerActivity.CPU] + ([ProfilerActivity.CUDA] if self.gpu else [])
        start = time.perf_counter()
        with profile(activities=activities) as recorded:
            work()
            self.wait()
        spent = time.perf_counter() - start
        averages = recorded.key_averages()
        by = "self_cuda_time_total" if self.gpu else "self_cpu_time_total"
        path = self.output.with_suffix(f".{name}.txt")
        path.write_text(averages.table(sort_by=by, row_limit=30, max_name_column_width=60), encoding="utf-8")
        kernels = sum(own.self_device_time_total for own in averages) if self.gpu else 0
        return {"profiled_ms": 1e3 * spent, "kernels_ms": kernels / 1e3, "table": path.name}


PARTS = (
    *("environment", "rates", "attention", "losses", "rightness", "generation", "arm", "divergence"),
    *("phase1", "phase2", "worst_batch", "host_waits", "profile"),
)


@contextlib.contextmanager
def freed(bench: Bench) -> Iterator[None]:
    """What a part leaves in the device's memory is given back."""
    yield
    if bench.gpu:
        torch.cuda.empty_cache()


def rounded(value: Any) -> Any:
    """Floats to four significant digits, in dictionaries too."""
    if isinstance(value, dict):
        return {name: rounded(own) for name, own in value.items()}
    return float(f"{value:.4g}") if isinstance(value, float) else value


def run_part(bench: Bench, part: str, begun: float) -> None:
    """Measure one part, print its line and append it to the output."""
    start = time.perf_counter()
    try:
        with freed(bench):
            found = getattr(bench, part)()
    except Exception:  # whatever it is, the next part is worth its time
        found = {"failed": traceback.format_exc()[-1500:]}
    now = time.perf_counter()
    line = json.dumps({"part": part, "s": round(now - start, 1), "at": round(now - begun, 1)} | rounded(found))
    print(line, flush=True)
    with bench.output.open("a", encoding="utf-8") as log:
        log.write(line + "\n")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", choices=tuple(SHAPES), default="llama-3.1-8b", help="sizes to run at")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS, help="what to measure (default: all)")
    parser.add_argument(
        "--output", type=Path, default=Path("gpu.jsonl"), help="figures to append to (default gpu.jsonl)"
    )
    return parser.parse_args()


def main() -> None:
    arguments = parse_arguments()
    logging.basicConfig(level=logging.WARNING)
    bench = Bench(SHAPES[arguments.shapes], arguments.output)
    set_threads(1 if bench.tiny else os.cpu_count() or 1)
    if not bench.tiny and not bench.gpu:
        raise SystemExit("benchmarks/gpu.py: no CUDA device here; --shapes tiny runs on the CPU")
    begun = time.perf_counter()
    for part in arguments.parts:
        run_part(bench, part, begun)


if __name__ == "__main__":
    main()
