"""The arms: each rebuilds a prompt's embeddings from what it may use, and shards change nothing."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from latentwire.arms.quantised import gaussian_levels, quantisation_bits

from latentwire.adapter import Adapter
from latentwire.arms import ArmInputs, not_applicable, rebuild_function
from latentwire.arms_table import ARMS, GROUP_ARMS, arm_module_name
from latentwire.compression.compressor import EmbeddingCompressor
from latentwire.compression.counts import count_tokens
from latentwire.errors import InputError
from latentwire.evaluation.evaluate import evaluate_arm
from latentwire.evaluation.generate import Decoder
from latentwire.evaluation.questions import arm_batches

V, D, K = 500, 24, 6
IDS = torch.arange(0, V, 3)
Inputs = Callable[..., ArmInputs]


@pytest.fixture
def table_VD() -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return (torch.randn(V, D, generator=generator) * 0.85 ** torch.arange(D) + 0.3).bfloat16()


@pytest.fixture
def counts_V() -> torch.Tensor:
    return torch.randint(0, 6, (V,), generator=torch.Generator().manual_seed(1))


@pytest.fixture
def inputs(tmp_path: Path, table_VD: torch.Tensor, counts_V: torch.Tensor) -> Inputs:
    """Builds an arm's inputs, with compressors and an adapter on disk."""

    def build(
        table_VD: torch.Tensor = table_VD, k: int = K, *, method: str = "pca", counts_V: torch.Tensor = counts_V
    ) -> ArmInputs:
        compressor = EmbeddingCompressor(table_VD.shape[1], k + 2, method).fit(table_VD, counts_V)
        compressor.save(tmp_path / f"{method}.safetensors")
        torch.manual_seed(2)
        adapter = Adapter.from_compressor(compressor.truncate(k))
        torch.nn.init.normal_(adapter.mlp[-1].weight, std=0.1)
        adapter.save(tmp_path / f"{method}-adapter.safetensors")
        return ArmInputs(
            table_VD, counts_V, tmp_path / f"{method}.safetensors", k, tmp_path / f"{method}-adapter.safetensors"
        )

    return build


def rebuilt(arm: str, inputs: ArmInputs, ids_U: torch.Tensor = IDS) -> torch.Tensor:
    rebuild = rebuild_function(arm)
    assert rebuild is not None
    return rebuild(inputs, ids_U)


def squared_error(rebuilt_UD: torch.Tensor, original_UD: torch.Tensor) -> float:
    return float((rebuilt_UD.double() - original_UD.double()).square().sum())


def test_every_arm_of_every_group_exists_and_the_two_text_arms_rebuild_nothing():
    arms = [arm for group in GROUP_ARMS.values() for arm in group]
    assert sorted(arms) == sorted(ARMS)
    assert {arm for arm in arms if rebuild_function(arm) is None} == {"text", "question"}
    with pytest.raises(KeyError, match="tekst"):  # codespell:ignore tekst
        arm_module_name("tekst")  # codespell:ignore tekst


@pytest.mark.parametrize("arm", sorted(set(ARMS) - {"text", "question"}))
def test_every_arm_is_position_wise(inputs, arm):
    """A token's row does not depend on the company that it is asked for in."""
    own = inputs()
    whole_UD = rebuilt(arm, own)
    assert whole_UD.shape == (len(IDS), D)
    some = torch.tensor([40, 3, 3, 99])
    torch.testing.assert_close(rebuilt(arm, own, IDS[some]), whole_UD[some], atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("arm", sorted(set(ARMS) - {"text", "question", "identity"}))
def test_arms_need_no_gradient(inputs, arm):
    assert not rebuilt(arm, inputs()).requires_grad


def test_identity_is_the_table_itself(inputs, table_VD):
    assert torch.equal(rebuilt("identity", inputs()), table_VD[IDS])


def test_mean_is_the_count_weighted_mean_of_the_pca_split_for_every_token(inputs, table_VD, counts_V):
    expected_D = table_VD.double().repeat_interleave(counts_V, dim=0).mean(dim=0).float()
    mean_UD = rebuilt("mean", inputs())
    torch.testing.assert_close(mean_UD, expected_D.expand(len(IDS), -1))
    torch.testing.assert_close(EmbeddingCompressor.load(inputs().compressor).mean_D, mean_UD[0])


def test_pca_is_the_compressors_inverse_of_rounded_codes_at_the_dimension_asked_for(inputs, table_VD, counts_V):
    compressor = EmbeddingCompressor(D, K).fit(table_VD, counts_V)
    codes_UK = compressor.compress(table_VD[IDS])
    assert codes_UK.dtype == torch.bfloat16
    torch.testing.assert_close(rebuilt("pca", inputs()), compressor.decompress(codes_UK))


@pytest.mark.parametrize(
    ("arm", "method"), [("phase1", "pca"), ("phase2", "pca"), ("control", "pca"), ("random", "random")]
)
def test_trained_arms_are_their_adapter_on_the_codes(inputs, table_VD, arm, method):
    own = inputs(method=method)
    codes_UK = EmbeddingCompressor.load(own.compressor, K).compress(table_VD[IDS])
    torch.testing.assert_close(rebuilt(arm, own), Adapter.load(own.adapter)(codes_UK).detach())


def test_snap_is_lossless_where_codes_are_distinct(inputs, table_VD):
    own = inputs(k=2)
    codes_VK = EmbeddingCompressor.load(own.compressor, 2).compress(table_VD)
    assert len(codes_VK.unique(dim=0)) > 0.9 * V
    _, group_V, size = codes_VK.unique(dim=0, return_inverse=True, return_counts=True)
    distinct_U = size[group_V[IDS]] == 1
    assert torch.equal(rebuilt("snap", own)[distinct_U], table_VD[IDS][distinct_U])


def test_snap_knows_the_code_alone_so_tokens_that_share_one_become_the_first_of_them(inputs, table_VD):
    own = inputs(k=1)
    codes_VK = EmbeddingCompressor.load(own.compressor, 1).compress(table_VD)
    first_V = (codes_VK == codes_VK.T).int().argmax(dim=1)
    assert (first_V < torch.arange(V)).any()
    assert torch.equal(rebuilt("snap", own, torch.arange(V)), table_VD[first_V])


def test_snap_d_takes_the_row_nearest_to_the_inverse_and_is_worse_than_snap(inputs, table_VD):
    own = inputs(k=2)
    inverse_UD = rebuilt("pca", own).double()
    nearest_U = torch.cdist(inverse_UD, table_VD.double()).argmin(dim=1)
    snapped_UD = rebuilt("snap_d", own)
    assert torch.equal(snapped_UD, table_VD[nearest_U])
    assert squared_error(snapped_UD, table_VD[IDS]) > squared_error(rebuilt("snap", own), table_VD[IDS])


# Quantisation


@pytest.mark.parametrize(("bits", "error"), [(1, 0.3634), (2, 0.1175), (4, 0.009497)])
def test_levels_are_max_and_lloyds_for_a_gaussian(bits, error):
    """Max (1960), table I."""
    levels = np.array(gaussian_levels(bits))
    assert len(levels) == 2**bits
    np.testing.assert_allclose(levels, -levels[::-1], atol=1e-9)
    x, step = np.linspace(-9, 9, 400_001, retstep=True)
    nearest = levels[np.searchsorted((levels[1:] + levels[:-1]) / 2, x)]
    density = np.exp(-(x**2) / 2) / np.sqrt(2 * np.pi)
    assert float(((x - nearest) ** 2 * density).sum() * step) == pytest.approx(error, rel=5e-4)


@pytest.mark.parametrize(("k", "bits", "error"), [(4, 4, 0.009497), (2, 2, 0.1175), (1, 1, 0.3634)])
def test_a_gaussian_table_loses_what_max_says(inputs, k, bits, error):
    table_VD = torch.randn(20_000, 16, generator=torch.Generator().manual_seed(0)) * torch.arange(1, 17) + 5
    own = inputs(table_VD.bfloat16(), k, counts_V=torch.ones(20_000, dtype=torch.int64))
    found_VD = rebuilt("quant", own, torch.arange(20_000))
    original_VD = own.table_VD.double()
    share_D = (found_VD.double() - original_VD).square().mean(dim=0) / original_VD.var(dim=0)
    assert float(share_D.mean()) == pytest.approx(error, rel=0.02)
    assert all(len(found_VD[:, column].unique()) == 2**bits for column in range(16))


@given(st.integers(1, 8192), st.integers(1, 8192), st.sampled_from([8, 16, 32]))
def test_quantisation_takes_no_more_bits_than_the_code_and_the_most_that_fit(d, k, code_bits):
    bits = quantisation_bits(d, k, code_bits)
    if bits is None:
        assert d > k * code_bits
    else:
        assert bits in (4, 2, 1)
        assert bits * d <= k * code_bits
        assert bits == 4 or 2 * bits * d > k * code_bits


@pytest.mark.parametrize(("k", "bits"), [(512, 2), (1024, 4), (256, 1), (255, None), (4096, 4)])
def test_bits_at_the_experiments_sizes(k, bits):
    assert quantisation_bits(4096, k, 16) == bits


def test_a_code_too_small_for_one_bit_a_number_is_refused(inputs):
    own = inputs(k=1)
    assert not_applicable("quant", own) == "one bit for each of 24 numbers is more than a code of 1 numbers takes"
    with pytest.raises(ValueError, match="a code of 1 numbers"):
        rebuilt("quant", own)
    assert not_applicable("pca", own) is None
    assert not_applicable("quant", inputs(k=2)) is None


@pytest.mark.parametrize(
    ("arm", "argument"), [("pca", "--compressor"), ("phase1", "--compressor"), ("snap", "--compressor")]
)
def test_an_arm_without_its_file_names_the_argument(table_VD, counts_V, arm, argument):
    with pytest.raises(InputError, match=argument):
        rebuilt(arm, ArmInputs(table_VD, counts_V))


# Evaluation


@pytest.fixture
def evaluated(tiny_model, tokenizer, prompts, sequences, inputs):
    """Evaluates an arm on some of the prompts, with one decoder for all arms."""
    model = tiny_model()
    table_VD = model.get_input_embeddings().weight.detach()
    own = inputs(table_VD, counts_V=count_tokens(sequences, len(table_VD)))
    decoder = Decoder(model, tokenizer, 4)

    def evaluate(arm: str, shard: int = 0, shards: int = 1, rows: pd.DataFrame = prompts) -> list[dict]:
        return evaluate_arm(arm, own, decoder, rows, arm_batches(arm, rows, 7)[shard::shards])

    return evaluate


def by_id(records: list[dict]) -> list[dict]:
    return sorted(records, key=lambda record: record["id"])


def test_an_arm_answers_every_question_once(evaluated, prompts):
    records = evaluated("text")
    assert by_id(records) == records or {record["id"] for record in records} == set(prompts["id"])
    assert len(records) == len(prompts)
    articles = dict(zip(prompts["id"], prompts["article"], strict=True))
    for record in records:
        assert record.keys() == {"arm", "id", "article", "prediction", "tokens", "finished"}
        assert (record["arm"], record["article"]) == ("text", articles[record["id"]])


def test_identity_answers_as_text_and_the_others_differ(evaluated):
    answers = {}
    for arm in ("text", "identity", "pca", "phase1", "mean", "question"):
        answers[arm] = [(record["id"], record["prediction"]) for record in by_id(evaluated(arm))]
    assert answers["identity"] == answers["text"]
    for arm in ("pca", "phase1", "mean", "question"):
        assert answers[arm] != answers["text"], arm


def test_the_question_arm_reads_the_prompt_without_its_context(evaluated, tiny_model, tokenizer, prompts):
    decoder = Decoder(tiny_model(), tokenizer, 4)
    for record in evaluated("question", rows=prompts.head(3)):
        ids = prompts.set_index("id")["question_ids"][record["id"]]
        assert record["prediction"] == decoder.answers([ids])[0].text


@pytest.mark.parametrize("arm", ["text", "phase1"])
@pytest.mark.parametrize("shards", [2, 3, 9])
def test_shards_together_are_the_unsharded_run(evaluated, arm, shards):
    """48 prompts in batches of 7 are 7 batches: of 9 shards, two have nothing to do."""
    parts = [record for shard in range(shards) for record in evaluated(arm, shard, shards)]
    assert by_id(parts) == by_id(evaluated(arm))


@given(st.lists(st.integers(1, 20), min_size=1, max_size=30), st.integers(1, 6), st.integers(1, 40))
def test_identity_answers_enough_of_texts_own_batches(lengths, batch_size, samples):
    frame = pd.DataFrame({"input_ids": [np.full(length, length, dtype=np.int32) for length in lengths]})
    text = arm_batches("text", frame, batch_size, samples)
    assert sorted(index for batch in text for index in batch) == list(range(len(frame)))
    identity = arm_batches("identity", frame, batch_size, samples)
    places = [text.index(batch) for batch in identity]
    assert places == sorted(set(places))
    answered = sum(map(len, identity))
    assert min(samples, len(frame)) <= answered < samples + batch_size
    assert arm_batches("identity", frame, batch_size) == text


def test_every_shard_rebuilds_the_same_rows(evaluated, monkeypatch):
    """Matrix products of other shapes round differently, so all shards rebuild the types of the whole split."""
    asked = []
    monkeypatch.setattr(
        "latentwire.evaluation.evaluate.rebuild_function",
        lambda arm: lambda inputs, ids_U: asked.append(ids_U.tolist()) or inputs.table_VD[ids_U],
    )
    for shard in range(3):
        evaluated("phase1", shard, 3)
    assert asked[0] == asked[1] == asked[2]
