"""The arms: what the model reads in place of the prompt's embeddings; and shards change nothing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import get_args

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from latentwire.adapter import Adapter
from latentwire.arms import ArmInputs, rebuilt_rows
from latentwire.arms.loading import arm_inputs
from latentwire.arms_table import (
    ARMS,
    COMPRESSORS,
    NOISE_CODECS,
    QUANTISED,
    TRAINED,
    UNCOMPRESSED,
    Variant,
    arm_row,
    ordered_arms,
)
from latentwire.codecs.adapted import AdapterCodec
from latentwire.codecs.adapted_product import AdaptedProductCodec
from latentwire.codecs.base import Codec, NotApplicable
from latentwire.codecs.files import CODES_FILE, decline
from latentwire.codecs.fp8 import Float8Codec
from latentwire.codecs.integers import FORMATS, IntegerCodec
from latentwire.codecs.linear import LinearCodec
from latentwire.codecs.nf4 import NormalFloatCodec
from latentwire.codecs.product import ProductCodec
from latentwire.codecs.residual import ResidualCodec
from latentwire.codecs.rotated import RotatedCodec
from latentwire.codecs.rounded import RoundedLinearCodec
from latentwire.codecs.scalar import ScalarCodec
from latentwire.compression.compressor import EmbeddingCompressor
from latentwire.compression.counts import count_tokens, fitting_weights, save_counts
from latentwire.evaluation.evaluate import evaluate_arm
from latentwire.evaluation.generate import Decoder
from latentwire.evaluation.questions import arm_batches
from latentwire.evaluation.rows import split_rows_of
from latentwire.layout import Layout
from latentwire.settings import NoiseCodec
from latentwire.table import save_table

V, D, K = 500, 24, 6
IDS = torch.arange(0, V, 3)
READ_IDS = {"text", "question"}
Inputs = Callable[..., ArmInputs]


@pytest.fixture
def table_VD() -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return (torch.randn(V, D, generator=generator) * 0.85 ** torch.arange(D) + 0.3).bfloat16()


@pytest.fixture
def counts_V() -> torch.Tensor:
    return torch.randint(0, 6, (V,), generator=torch.Generator().manual_seed(1))


def codec_of(arm: str, table_VD: torch.Tensor, counts_V: torch.Tensor, k: int) -> Codec | None:
    """The codec that an arm is, or decodes."""
    row = arm_row(arm)
    if row.codec is None:
        return None
    if row.stage == "quantised":
        torch.manual_seed(3)
        own = Adapter(D, D, residual=True)
        return AdaptedProductCodec.of(ProductCodec.fit(table_VD, counts_V + 1, 8), own)
    match row.family:
        case "scalar":
            return ScalarCodec.fit(table_VD, counts_V, k)
        case "integers":
            bits, symmetric, _ = FORMATS[row.codec]
            return IntegerCodec.fit(table_VD, bits, 8, symmetric=symmetric)
        case "fp8":
            return Float8Codec.fit(table_VD)
        case "nf4":
            return NormalFloatCodec.fit(table_VD, 8)
        case "rotated":
            return RotatedCodec.fit(table_VD, 4)
        case "product":
            return ProductCodec.fit(table_VD, counts_V + 1, 4)
        case "residual":
            return ResidualCodec.fit(table_VD, counts_V + 1, 2, 8)
    if row.stage == "uncompressed":
        k = table_VD.shape[1]
    method, _, weighting = COMPRESSORS[row.codec].partition("_")
    compressor = EmbeddingCompressor(table_VD.shape[1], k, method)
    compressor.fit(table_VD, fitting_weights(counts_V, weighting or "counts"))
    if row.family == "rounded":
        return RoundedLinearCodec.of(compressor, table_VD, counts_V, 4)
    linear = LinearCodec.of(compressor, table_VD)
    if row.stage is None or row.own_codes:
        return linear
    torch.manual_seed(2)
    adapter = Adapter.from_compressor(compressor)
    torch.nn.init.normal_(adapter.mlp[-1].weight, std=0.1)
    return AdapterCodec.of(linear.codes, adapter, len(table_VD))


@pytest.fixture
def inputs(table_VD: torch.Tensor, counts_V: torch.Tensor) -> Inputs:
    """Builds what an arm may use."""

    def build(
        arm: str, table_VD: torch.Tensor = table_VD, k: int = K, *, counts_V: torch.Tensor = counts_V
    ) -> ArmInputs:
        return ArmInputs(table_VD, counts_V, codec_of(arm, table_VD, counts_V, k))

    return build


def rebuilt(arm: str, inputs: ArmInputs, ids_U: torch.Tensor = IDS) -> torch.Tensor:
    rows_UD = rebuilt_rows(arm, inputs, ids_U)
    assert rows_UD is not None
    return rows_UD


def squared_error(rebuilt_UD: torch.Tensor, original_UD: torch.Tensor) -> float:
    return float((rebuilt_UD.double() - original_UD.double()).square().sum())


def test_the_arms_that_read_token_ids_rebuild_nothing(inputs: Inputs):
    assert {arm for arm in ARMS if rebuilt_rows(arm, inputs(arm), IDS) is None} == READ_IDS
    assert {arm for arm in ARMS if not arm_row(arm).rebuilds} == READ_IDS
    with pytest.raises(KeyError, match="no rows of the arm 'tekst'"):  # codespell:ignore tekst
        rebuilt_rows("tekst", inputs("text"), IDS)  # codespell:ignore tekst


def test_rebuilt_rows_that_are_not_finite_are_refused(inputs: Inputs):
    own = inputs("pca")
    assert own.codec is not None
    own.codec.codes["codes_VK"][42, 1] = torch.inf
    said = "arm pca: the rebuilt embedding of token 42 is not finite in float32"
    with pytest.raises(FloatingPointError, match=said):
        rebuilt_rows("pca", own, IDS)
    assert rebuilt_rows("pca", own, IDS[IDS != 42]) is not None


def test_rows_that_do_not_fit_into_the_models_dtype_are_refused(inputs: Inputs):
    own = inputs("identity")
    own.table_VD[6] = 1e5  # float16 ends at 65,504
    prompts = pd.DataFrame({"input_ids": [[3, 6], [9]]})
    assert split_rows_of("identity", own, prompts, torch.bfloat16) is not None
    with pytest.raises(FloatingPointError, match="arm identity: the rebuilt embedding of token 6 .* in float16"):
        split_rows_of("identity", own, prompts, torch.float16)


@pytest.mark.parametrize("arm", sorted(set(ARMS) - READ_IDS))
def test_every_arm_is_position_wise_and_needs_no_gradient(inputs: Inputs, arm: str):
    """A token's row does not depend on which other tokens are rebuilt with it."""
    own = inputs(arm)
    whole_UD = rebuilt(arm, own)
    assert whole_UD.shape == (len(IDS), D) and not whole_UD.requires_grad
    some = torch.tensor([40, 3, 3, 99])
    torch.testing.assert_close(rebuilt(arm, own, IDS[some]), whole_UD[some], atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("arm", sorted(arm for arm, row in ARMS.items() if row.kind == "codec"))
def test_a_codecs_arm_is_what_it_decodes_and_never_sees_the_table(inputs: Inputs, arm: str):
    own = inputs(arm)
    assert own.codec is not None
    expected_UD = own.codec.decode(IDS)
    own.table_VD.fill_(torch.nan)
    assert torch.equal(rebuilt(arm, own), expected_UD)


def test_identity_is_the_table_itself(inputs: Inputs, table_VD: torch.Tensor):
    assert torch.equal(rebuilt("identity", inputs("identity")), table_VD[IDS])


def test_mean_is_the_count_weighted_mean_of_the_pca_split_for_every_token(
    inputs: Inputs, table_VD: torch.Tensor, counts_V: torch.Tensor
):
    expected_D = table_VD.double().repeat_interleave(counts_V, dim=0).mean(dim=0).float()
    mean_UD = rebuilt("mean", inputs("mean"))
    torch.testing.assert_close(mean_UD, expected_D.expand(len(IDS), -1))
    torch.testing.assert_close(EmbeddingCompressor(D, K).fit(table_VD, counts_V).mean_D, mean_UD[0])


def test_snap_is_lossless_where_codes_are_distinct(inputs: Inputs, table_VD: torch.Tensor):
    own = inputs("snap", k=2)
    codes_VK = own.codec.codes_VK
    assert len(codes_VK.unique(dim=0)) > 0.9 * V
    _, group_V, size = codes_VK.unique(dim=0, return_inverse=True, return_counts=True)
    distinct_U = size[group_V[IDS]] == 1
    assert torch.equal(rebuilt("snap", own)[distinct_U], table_VD[IDS][distinct_U])


def test_snap_knows_the_code_alone_so_tokens_that_share_one_become_the_first_of_them(
    inputs: Inputs, table_VD: torch.Tensor
):
    own = inputs("snap", k=1)
    first_V = (own.codec.codes_VK == own.codec.codes_VK.T).int().argmax(dim=1)
    assert (first_V < torch.arange(V)).any()
    assert torch.equal(rebuilt("snap", own, torch.arange(V)), table_VD[first_V])


def test_snap_d_takes_the_row_nearest_to_the_inverse_and_is_worse_than_snap(inputs: Inputs, table_VD: torch.Tensor):
    own = inputs("snap_d", k=2)
    inverse_UD = own.codec.decode(IDS).double()
    nearest_U = torch.cdist(inverse_UD, table_VD.double()).argmin(dim=1)
    snapped_UD = rebuilt("snap_d", own)
    assert torch.equal(snapped_UD, table_VD[nearest_U])
    assert squared_error(snapped_UD, table_VD[IDS]) > squared_error(rebuilt("snap", own), table_VD[IDS])


# Controls


@pytest.mark.parametrize("codec", ["pca", "pq4"])
def test_noise_by_row_is_as_large_as_the_codecs_error_in_every_row(inputs: Inputs, table_VD: torch.Tensor, codec: str):
    noisy_UD, coded_UD = rebuilt(f"noise_rows_{codec}", inputs(codec)), rebuilt(codec, inputs(codec))
    original_UD = table_VD[IDS].float()
    torch.testing.assert_close((noisy_UD - original_UD).norm(dim=1), (coded_UD - original_UD).norm(dim=1))
    cosines_U = torch.cosine_similarity(noisy_UD - original_UD, coded_UD - original_UD, dim=1)
    assert abs(float(cosines_U.mean())) < 4 / (D * len(IDS)) ** 0.5


def test_noise_over_all_has_the_codecs_error_by_occurrence_and_is_equal_for_all_rows(inputs: Inputs):
    table_VD = torch.randn(4000, D, generator=torch.Generator().manual_seed(5)) * 0.8 ** torch.arange(D)
    counts_V = torch.randint(1, 9, (4000,), generator=torch.Generator().manual_seed(6))
    own, ids = inputs("pca", table_VD, counts_V=counts_V), torch.arange(4000)

    def squared(arm: str) -> torch.Tensor:
        return (rebuilt(arm, own, ids) - table_VD).double().square().sum(dim=1)

    noise_V, coded_V = squared("noise_equal_pca"), squared("pca")
    assert float((counts_V * noise_V).sum()) == pytest.approx(float((counts_V * coded_V).sum()), rel=0.03)
    # A sum of D squares of one Gaussian: its deviation over its mean is the square root of 2/D, whatever the row.
    assert float(noise_V.std() / noise_V.mean()) == pytest.approx((2 / D) ** 0.5, rel=0.1)


@pytest.mark.parametrize("codec", ["pca", "pq4"])
def test_shrunk_noise_has_the_codecs_error_along_the_row_and_its_size_across(
    inputs: Inputs, table_VD: torch.Tensor, counts_V: torch.Tensor, codec: str
):
    mean_D = (counts_V.double() @ table_VD.double()) / counts_V.sum()
    original_UD = table_VD[IDS].double() - mean_D
    errors = [
        rebuilt(arm, inputs(codec)).double() - table_VD[IDS].double() for arm in (f"noise_shrunk_{codec}", codec)
    ]
    along, across = zip(
        *(
            (((error_UD * original_UD).sum(dim=1)), (error_UD - _along(error_UD, original_UD)).norm(dim=1))
            for error_UD in errors
        ),
        strict=True,
    )
    torch.testing.assert_close(*along, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(*across, rtol=1e-4, atol=1e-4)
    beside = [error_UD - _along(error_UD, original_UD) for error_UD in errors]
    assert abs(float(torch.cosine_similarity(*beside, dim=1).mean())) < 4 / (D * len(IDS)) ** 0.5


def _along(error_UD: torch.Tensor, original_UD: torch.Tensor) -> torch.Tensor:
    """The part of each error in the direction of its row."""
    share_U = (error_UD * original_UD).sum(dim=1) / original_UD.square().sum(dim=1)
    return share_U[:, None] * original_UD


@pytest.mark.parametrize("spread", ["rows", "shrunk", "equal"])
def test_draws_of_noise_are_independent_and_a_tokens_draw_is_its_own(inputs: Inputs, spread: str, table_VD):
    own, arm = inputs("pca"), f"noise_{spread}_pca"
    first_UD, second_UD = (rebuilt(arm, replace(own, draw=draw)) - table_VD[IDS] for draw in (0, 1))
    if spread != "shrunk":  # which has a part in common
        assert abs(float(torch.cosine_similarity(first_UD, second_UD, dim=1).mean())) < 4 / (D * len(IDS)) ** 0.5
    assert not torch.isclose(first_UD, second_UD).all(dim=1).any()
    torch.testing.assert_close(rebuilt(arm, replace(own, draw=1), IDS[3:5]) - table_VD[IDS[3:5]], second_UD[3:5])


# The table of arms


@pytest.mark.parametrize("arm", sorted(ARMS))
def test_a_variant_is_written_as_it_is_read(arm: str):
    variant = Variant.of(arm, 72, 1)
    row = arm_row(arm)
    assert (variant.k is not None, variant.seed is not None) == (bool(row.codec and row.sized), row.seeded)
    assert Variant.parse(str(variant)) == variant


def test_a_trained_arm_without_a_code_dimension_has_a_seed_alone():
    variant = Variant.parse("identity_ppl:2")
    assert (variant.k, variant.seed) == (None, 2) and str(variant) == "identity_ppl:2"
    assert variant == Variant.of("identity_ppl", 72, 2)
    assert Layout("results/x").codec(variant) == "results/x/seed2/identity_ppl"


def test_noise_has_its_draw_for_a_seed_and_the_files_of_its_codec():
    variant = Variant.parse("noise_rows_pca:72:2")
    assert variant == Variant.of("noise_rows_pca", 72, 2) and Layout("r").codec(variant) == "r/k72/codecs/pca"
    assert Variant.parse("noise_equal_pq4:1") == Variant("noise_equal_pq4", None, 1)
    assert set(get_args(NoiseCodec)) == set(NOISE_CODECS)


def test_noise_of_a_trained_arm_has_that_training_for_a_draw():
    trained = Variant.parse("noise_rows_phase1:72:2")
    assert trained == Variant.of("noise_rows_phase1", 72, 2)
    assert Layout("r").codec(trained) == Layout("r").codec(Variant("phase1", 72, 2)) == "r/k72/seed2/phase1"
    assert Layout("r").codec(Variant("noise_equal_adapted_pq8", None, 1)) == "r/seed1/adapted_pq8"
    assert not any(name.startswith("noise_") for arms in (*TRAINED.values(), QUANTISED, UNCOMPRESSED) for name in arms)


def test_the_rows_of_a_control_with_an_adapter_are_the_adapters(table_VD, counts_V, inputs):
    own = inputs("identity_ppl")
    ids_U = torch.arange(7)
    rows_UD = rebuilt_rows("identity_ppl", own, ids_U)
    assert torch.equal(rows_UD, own.codec.decode(ids_U)) and not torch.equal(rows_UD, table_VD[ids_U].float())
    # It is measured against codecs and is none of them.
    assert ARMS["identity_ppl"].kind == "control"


@pytest.mark.parametrize(
    "text",
    [
        "identity_ppl",
        "identity_ppl:72:0",
        "phase1",
        "phase1:72",
        "pca",
        "pca:72:0",
        "text:72",
        "pca:x",
        "pq4:72",
        "pca:-1",
    ],
)
def test_a_variant_has_what_its_arm_depends_on(text: str):
    with pytest.raises(ValueError, match="expected arm, arm:k, or arm:k:seed"):
        Variant.parse(text)


def test_an_arm_that_the_table_lacks_is_a_users_codec():
    row = arm_row("mine")
    assert (row.kind, row.codec, row.stage, row.sized) == ("codec", "mine", None, True)
    order = ordered_arms(["question", "mine", "text", "quant"])
    assert order == ["text", "quant", "mine", "question"]
    assert ordered_arms(["noise_rows_pca", "mine", "rq8", "pq8"]) == ["pq8", "rq8", "mine", "noise_rows_pca"]
    kinds = [arm_row(name).kind for name in ordered_arms([*ARMS, "mine"])]
    own = [*ordered_arms([*ARMS, "mine"])].index("mine")
    assert "codec" not in kinds[own + 1 :] and "control" not in kinds[:own]


def test_arms_are_found_with_their_codecs(tmp_path: Path, table_VD: torch.Tensor, counts_V: torch.Tensor):
    layout = Layout(str(tmp_path))
    save_table(layout.table, table_VD)
    save_counts(layout.counts, pca=counts_V, train=counts_V.clone())
    codec_of("pca", table_VD, counts_V, K).save_pretrained(layout.fitted(K, "pca"))
    trained = codec_of("phase1", table_VD, counts_V, K)
    trained.save_pretrained(layout.training(K, 0, "phase1"), codes=Path(layout.fitted(K, "pca")) / CODES_FILE)
    decline(layout.fitted(K, "quant"), "too small")
    variants = [Variant("text"), Variant("pca", K), Variant("snap", K), Variant("phase1", K, 0), Variant("quant", K)]
    found = list(arm_inputs(str(tmp_path), variants, Path(layout.table), Path(layout.counts)))
    assert [variant for variant, _, _ in found] == variants
    codecs = [None if isinstance(own, NotApplicable) else own.codec for _, own, _ in found]
    assert [type(codec) for codec in codecs] == [type(None), LinearCodec, LinearCodec, AdapterCodec, type(None)]
    assert isinstance(found[-1][1], NotApplicable) and str(found[-1][1]) == "too small"
    assert all(file.is_file() for _, _, files in found for file in files)
    assert torch.equal(rebuilt("phase1", found[3][1]), trained.decode(IDS))


# Evaluation


@pytest.fixture
def evaluated(tiny_model, tokenizer, prompts, sequences, inputs):
    """Evaluates an arm on some of the prompts, with one decoder for all arms."""
    model = tiny_model()
    table_VD = model.get_input_embeddings().weight.detach()
    counts_V = count_tokens(sequences, len(table_VD))
    decoder = Decoder(model, tokenizer, 4)

    def evaluate(arm: str, shard: int = 0, shards: int = 1, rows: pd.DataFrame = prompts) -> list[dict]:
        own = inputs(arm, table_VD, counts_V=counts_V)
        batches = arm_batches(arm, rows, 7)[shard::shards]
        read = split_rows_of(arm, own, rows, torch.float32)
        return evaluate_arm(Variant.of(arm, K, 0), read, lambda: decoder, rows, batches)

    return evaluate


def by_id(records: list[dict]) -> list[dict]:
    return sorted(records, key=lambda record: record["id"])


def test_an_arm_answers_every_question_once(evaluated, prompts):
    records = evaluated("text")
    assert by_id(records) == records or {record["id"] for record in records} == set(prompts["id"])
    assert len(records) == len(prompts)
    articles = dict(zip(prompts["id"], prompts["article"], strict=True))
    for record in records:
        assert record.keys() == {"arm", "k", "seed", "id", "article", "prediction", "tokens", "finished"}
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
        "latentwire.evaluation.rows.rebuilt_rows",
        lambda arm, inputs, ids_U: asked.append(ids_U.tolist()) or inputs.table_VD[ids_U],
    )
    for shard in range(3):
        evaluated("phase1", shard, 3)
    assert asked[0] == asked[1] == asked[2]
