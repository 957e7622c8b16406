"""How far a model's predictions move when it reads rebuilt embeddings: measures that see more than F1.

One teacher-forced pass over the prompt and the reference answer, with the original embeddings and with an arm's: the
Kullback–Leibler divergence KL(original ‖ arm) of the next-token distributions, whether both have the same most likely
token, and the log-likelihood of the token that comes. A measurement: nothing is trained on it. The original's hidden
states are computed once per batch and serve every arm, and logits exist for a block of positions at a time.

Shape suffixes: B batch, L length, D embedding dimensions, N positions, V vocabulary, U token types.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from tqdm import tqdm

from latentwire.arms_table import Variant
from latentwire.device import in_parts_that_fit
from latentwire.evaluation.questions import in_parts
from latentwire.evaluation.rows import SplitRows
from latentwire.evaluation.store import AnswerStore, RowHashes
from latentwire.packing import PackedDecoder, prompt_batch

BLOCK_POSITIONS = 256
BATCH_PROMPTS = 8
# Positions of the prompt by how often training saw the token that is read there: from, and below.
READ_COUNTS = {"unseen": (0, 1), "1-9": (1, 10), "10-99": (10, 100), "100-999": (100, 1000), "1000+": (1000, np.inf)}
SUMS = ("kl", "same_top", "log_likelihood", "log_likelihood_text")
COLUMNS = ("arm", "k", "seed", "id", "article", "subset", "positions", *SUMS)


@dataclass(frozen=True)
class ForcedPrompt:
    """A prompt with its reference answer, token ids.

    Attributes:
        prompt_ids: what arms rebuild.
        label_mask: which of the prompt's tokens are predicted (not the template's).
        answer_ids: what follows, in the model's own embeddings.
    """

    prompt_ids: np.ndarray
    label_mask: np.ndarray
    answer_ids: np.ndarray

    @property
    def ids(self) -> np.ndarray:
        """All tokens."""
        return np.concatenate([self.prompt_ids, self.answer_ids]).astype(np.int64)

    @property
    def measured(self) -> np.ndarray:
        """Which tokens' prediction is measured, bool; the first token has none."""
        asked = np.concatenate([np.asarray(self.label_mask, dtype=bool), np.ones(len(self.answer_ids), dtype=bool)])
        asked[0] = False
        return asked

    @property
    def predicted(self) -> np.ndarray:
        """Indices of these tokens."""
        return np.flatnonzero(self.measured)


def forced_prompts(prompts: pd.DataFrame, tokenizer: Any, limit: int) -> list[ForcedPrompt]:
    """Each prompt with its first reference answer, behind a space if the prompt does not end with white space.

    Args:
        prompts: prepared.
        tokenizer: the model's.
        limit: the model's context, in tokens; of a reference that does not fit the beginning is read.
    """
    forced = []
    for row in prompts.to_dict("records"):
        space = "" if tokenizer.decode(row["input_ids"][-4:])[-1:].isspace() else " "
        answer = tokenizer(space + row["answers"][0].strip(), add_special_tokens=False)["input_ids"]
        answer = answer[: limit - len(row["input_ids"])]
        forced.append(
            ForcedPrompt(np.asarray(row["input_ids"]), np.asarray(row["label_mask"]), np.array(answer, dtype=np.int64))
        )
    return forced


class DivergenceReader:
    """Hidden states and next-token distributions of one frozen model.

    Args:
        model: a Hugging Face causal language model.
    """

    def __init__(self, model: Any) -> None:
        self.decoder, self.head = PackedDecoder(model), model.get_output_embeddings()
        self.table_VD = model.get_input_embeddings().weight
        self.device = self.decoder.device

    @torch.inference_mode()
    def hidden(self, batch: Sequence[ForcedPrompt], rows: SplitRows | None = None) -> torch.Tensor:
        """Hidden states ``[N, D]`` from which the measured tokens are predicted, prompt after prompt.

        Args:
            batch: the prompts.
            rows: what the prompts' tokens are read as; None for the model's own.
        """
        packed = prompt_batch([one.ids for one in batch], [one.measured for one in batch], self.decoder.layout)
        inputs_BLD = self.table_VD[packed.ids_BL.to(self.device)]
        if rows is not None:
            prompt_tokens = torch.tensor([len(one.prompt_ids) for one in batch])
            # Padding belongs to prompt -1, of which any is as good.
            rebuilt_BL = packed.mask_BL.bool() & (packed.positions_BL < prompt_tokens[packed.owner_BL])
            index_N = torch.searchsorted(rows.ids_U, packed.ids_BL[rebuilt_BL])
            inputs_BLD[rebuilt_BL.to(self.device)] = rows.rows_UD[index_N].to(self.device, inputs_BLD.dtype)
        owner_N = packed.owner_BL.flatten()[packed.predicted_N]
        return self.decoder.hidden(inputs_BLD, packed)[owner_N.argsort(stable=True)]

    @torch.inference_mode()
    def compare(
        self, text_ND: torch.Tensor, arms_ND: Sequence[torch.Tensor], labels_N: torch.Tensor
    ) -> list[dict[str, np.ndarray]]:
        """For each arm the measures at every position, float64 ``[N]`` (nats): :data:`SUMS`."""
        found: list[list[torch.Tensor]] = [[] for _ in arms_ND]
        for block in torch.arange(len(labels_N)).split(BLOCK_POSITIONS):
            labels_N1 = labels_N[block, None].to(self.device)
            text_NV = self._log_probabilities(text_ND[block])
            chances_NV, top_N = text_NV.exp(), text_NV.argmax(dim=1)
            text_N = text_NV.gather(1, labels_N1).squeeze(1)
            for own, arm_ND in zip(found, arms_ND, strict=True):
                arm_NV = self._log_probabilities(arm_ND[block])
                # A token that the model rules out has log-probability -inf on both sides.
                kl_N = torch.where(chances_NV > 0, chances_NV * (text_NV - arm_NV), 0.0).sum(dim=1)
                same_N = (arm_NV.argmax(dim=1) == top_N).to(kl_N.dtype)
                own.append(torch.stack([kl_N, same_N, arm_NV.gather(1, labels_N1).squeeze(1), text_N]).double().cpu())
        return [dict(zip(SUMS, torch.cat(own, dim=1).numpy(), strict=True)) for own in found]

    def _log_probabilities(self, hidden_ND: torch.Tensor) -> torch.Tensor:
        return self.head(hidden_ND).float().log_softmax(dim=1)


def question_records(
    batch: Sequence[ForcedPrompt], measured: Mapping[str, np.ndarray], train_counts_V: np.ndarray
) -> list[dict[str, list[float]]]:
    """Sums over subsets of a prompt's positions: by subset ``[positions, *SUMS]``, one dictionary per prompt.

    Args:
        batch: the prompts.
        measured: of all their positions, prompt after prompt.
        train_counts_V: occurrences of each token type in the training prompts.
    """
    records, start = [], 0
    for one in batch:
        predicted = one.predicted
        own = {name: values[start : start + len(predicted)] for name, values in measured.items()}
        start += len(predicted)
        in_prompt = predicted < len(one.prompt_ids)
        seen = train_counts_V[one.ids[predicted - 1]]
        subsets = {"prompt": in_prompt, "answer": ~in_prompt}
        subsets |= {name: in_prompt & (seen >= low) & (seen < high) for name, (low, high) in READ_COUNTS.items()}
        records.append(
            {
                subset: [float(chosen.sum()), *(float(own[name][chosen].sum()) for name in SUMS)]
                for subset, chosen in subsets.items()
            }
        )
    return records


def divergence_table(
    variant: Variant, prompts: pd.DataFrame, indices: Sequence[int], records: Sequence[Mapping[str, Sequence[float]]]
) -> pd.DataFrame:
    """One row per question and subset with ``positions`` and the sums, for one arm."""
    rows = [
        {
            "arm": variant.arm,
            "k": variant.k,
            "seed": variant.seed,
            "id": prompts["id"].iloc[index],
            "article": prompts["article"].iloc[index],
            "subset": subset,
            **dict(zip(("positions", *SUMS), values, strict=True)),
        }
        for index, record in zip(indices, records, strict=True)
        for subset, values in record.items()
    ]
    return pd.DataFrame(rows).astype({"k": "Int64", "seed": "Int64"})


def measured_batches(count: int, samples: int | None) -> list[list[int]]:
    """Batches of indices into a split of ``count`` prompts: evenly spaced ones, the same for every arm; None: all."""
    chosen = np.linspace(0, count, min(count, count if samples is None else samples), endpoint=False).astype(int)
    return [chosen[start : start + BATCH_PROMPTS].tolist() for start in range(0, len(chosen), BATCH_PROMPTS)]


def measure_divergence(
    rows: Mapping[Variant, SplitRows],
    reader: Callable[[], DivergenceReader],
    prompts: pd.DataFrame,
    forced: Sequence[ForcedPrompt],
    batches: Sequence[Sequence[int]],
    train_counts_V: np.ndarray,
    *,
    store: AnswerStore,
) -> pd.DataFrame:
    """The divergence of arms that rebuild the prompt's embeddings: for all in smaller batches, if a GPU needs these.

    Args:
        rows: what the model reads of each arm.
        reader: gives the frozen model, when the first value has to be computed.
        prompts: the split.
        forced: its prompts with their reference answers.
        batches: indices into it.
        train_counts_V: occurrences of each token type in the training prompts.
        store: what was measured before.

    Returns:
        :func:`divergence_table` of all arms.

    Raises:
        Stopped: the work was told to stop; the store keeps what was measured.
        torch.OutOfMemoryError: even one prompt is too much.
    """
    if not rows or not batches:
        return pd.DataFrame(columns=COLUMNS)

    def attempt(parts: int) -> list[pd.DataFrame]:
        tables = []
        for indices in tqdm(in_parts(batches, parts), desc="divergence", unit="batch", mininterval=5):
            found = _measured(rows, reader, [forced[index] for index in indices], train_counts_V, store)
            tables += [divergence_table(variant, prompts, indices, records) for variant, records in found.items()]
        return tables

    tables, _ = in_parts_that_fit(
        attempt,
        1,
        max(map(len, batches)),
        lambda parts: f"predictions of all arms are compared anew, in batches of 1/{parts} of {BATCH_PROMPTS} prompts",
    )
    return pd.concat(tables, ignore_index=True)


def _measured(
    rows: Mapping[Variant, SplitRows],
    reader: Callable[[], DivergenceReader],
    batch: Sequence[ForcedPrompt],
    train_counts_V: np.ndarray,
    store: AnswerStore,
) -> dict[Variant, list[Any]]:
    """The records of each arm on one batch; what is not in the store is computed and kept."""
    names = {variant: _name(store, batch, own.hashes, train_counts_V) for variant, own in rows.items()}
    found = {variant: store.read(name, len(batch)) for variant, name in names.items()}
    missing = [variant for variant, records in found.items() if records is None]
    if missing:
        labels_N = torch.from_numpy(np.concatenate([one.ids[one.predicted] for one in batch]))
        hidden = []
        for variant in missing:
            store.check()  # a batch of many arms takes minutes, and schedulers kill half a minute after they ask
            hidden.append(reader().hidden(batch, rows[variant]))
        measured = reader().compare(reader().hidden(batch), hidden, labels_N)
        for variant, own in zip(missing, measured, strict=True):
            if not all(np.isfinite(own[name]).all() for name in ("kl", "same_top")):
                raise FloatingPointError(
                    f"arm {variant}: the model's logits are not finite in {rows[variant].rows_UD.dtype}"
                )
            found[variant] = question_records(batch, own, train_counts_V)
            store.write(names[variant], found[variant] or [])
    return {variant: records or [] for variant, records in found.items()}


def _name(store: AnswerStore, batch: Sequence[ForcedPrompt], hashes: RowHashes, train_counts_V: np.ndarray) -> str:
    """The name of an arm's records: beside what the model reads, what is measured and how often training saw it."""
    measured = [np.concatenate([one.ids, one.predicted, train_counts_V[one.ids]]) for one in batch]
    return store.name([one.prompt_ids for one in batch], hashes, b"".join(part.tobytes() for part in measured))
