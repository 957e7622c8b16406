"""Phase 1: the loss over unique tokens is the loss over occurrences, and training beats the linear inverse."""

import json
from contextlib import nullcontext

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from latentwire.adapter import Adapter
from latentwire.codecs.files import decline
from latentwire.compression.compressor import EmbeddingCompressor
from latentwire.compression.counts import count_tokens
from latentwire.errors import InputError
from latentwire.evaluation.reconstruction_metrics import question_sums, type_errors
from latentwire.evaluation.reconstruction_summary import summarise
from latentwire.resuming.checkpoint import Checkpoints
from latentwire.settings import Phase1
from latentwire.table import save_table
from latentwire.training import phase1
from latentwire.training.phase1 import (
    TokenRows,
    held_out_metrics,
    held_out_types,
    train_phase1,
    type_weights,
    unique_tokens,
    vocabulary_share,
    weighted_error,
)
from latentwire.training.run_phase1 import CodecTrainingFiles
from latentwire.training.run_quantised import run_quantised

V, D, K = 400, 16, 4
CPU = torch.device("cpu")


def curved_table() -> torch.Tensor:
    """Rows on a curved surface of K dimensions, small and off the origin as real embeddings are."""
    generator = torch.Generator().manual_seed(0)
    hidden_VK = torch.randn(V, K, generator=generator)
    bent_VD = torch.cat(
        [hidden_VK, hidden_VK.square() - 1, (2 * hidden_VK).sin(), hidden_VK.roll(1, 1) * hidden_VK], 1
    )
    return 0.01 * bent_VD @ torch.linalg.qr(torch.randn(D, D, generator=generator)).Q + 0.003


def drawn_prompts(count: int, seed: int) -> list[np.ndarray]:
    """Prompts of unequal lengths with Zipf-like token frequencies."""
    rng = np.random.default_rng(seed)
    weights = 1 / np.arange(1, V + 1)
    return [rng.choice(V, rng.integers(5, 40), p=weights / weights.sum()).astype(np.int32) for _ in range(count)]


TABLE = curved_table()
TRAIN, HELD_OUT = drawn_prompts(60, 0), drawn_prompts(20, 1)
COMPRESSOR = EmbeddingCompressor(D, K).fit(TABLE, count_tokens(TRAIN, V))


def train(
    folder,
    table_VD=TABLE,
    compressor=COMPRESSOR,
    *,
    seed=0,
    recon_weight=1.0,
    weighting="counts",
    **changes,
):
    return train_phase1(
        TRAIN,
        HELD_OUT,
        table_VD,
        compressor.codes(table_VD),
        compressor,
        Phase1(**{"epochs": 3, "batch_size": 16, "lr": 3e-3} | changes),
        seed=seed,
        recon_weight=recon_weight,
        weighting=weighting,
        device=CPU,
        checkpoints=Checkpoints(folder / "state"),
        diagnostics=folder / "diagnostics.jsonl",
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_loss_over_unique_tokens_is_the_loss_over_occurrences_in_value_and_gradient(dtype):
    """Against float64 autograd over every gathered occurrence; float32 agrees to 1e-5 relative."""
    table_VD = TABLE.to(dtype)
    adapter = Adapter.from_compressor(COMPRESSOR)
    torch.nn.init.normal_(adapter.mlp[-1].weight, std=0.1, generator=torch.Generator().manual_seed(1))
    rows = TokenRows(table_VD, COMPRESSOR.codes(table_VD), COMPRESSOR, torch.arange(V), CPU)
    ids_U, counts_U = unique_tokens(TRAIN)
    codes_UK, target_UD = rows.of(ids_U)
    loss = weighted_error(adapter.standardised(codes_UK), target_UD, counts_U)
    loss.backward()

    reference = Adapter.from_compressor(COMPRESSOR)
    reference.load_state_dict(adapter.state_dict())
    reference.double()
    ids_N = torch.from_numpy(np.concatenate(TRAIN)).long()
    codes_NK = COMPRESSOR.compress(table_VD)[ids_N].double()
    mean_D, scale = COMPRESSOR.mean_D.double(), COMPRESSOR.scale.double()
    target_ND = (table_VD[ids_N].double() - mean_D) / scale
    expected = torch.nn.functional.mse_loss(reference.standardised(codes_NK), target_ND)
    expected.backward()

    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    for ours, theirs in zip(adapter.parameters(), reference.parameters(), strict=True):
        torch.testing.assert_close(
            ours.grad.double(), theirs.grad, rtol=1e-4, atol=1e-5 * float(theirs.grad.abs().max())
        )


@given(per_epoch=st.integers(1, 50), seed=st.integers(0, 1000))
def test_an_epochs_shares_are_the_vocabulary_once(per_epoch, seed):
    for epoch in range(2):
        shares = [vocabulary_share(epoch * per_epoch + i, per_epoch, V, seed) for i in range(per_epoch)]
        assert torch.cat(shares).sort().values.tolist() == list(range(V))
        assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_smoothing_rebuilds_tokens_that_no_prompt_holds_better(tmp_path):
    unused = torch.tensor(sorted(set(range(V)) - set(np.concatenate(TRAIN).tolist())))
    assert len(unused) > 50
    errors = {}
    for smoothing in (0.0, 10.0):
        folder = tmp_path / str(smoothing)
        adapter, _ = train(folder, epochs=100, smoothing=smoothing)
        codes, targets = TokenRows(TABLE, COMPRESSOR.codes(TABLE), COMPRESSOR, unused, CPU).of(unused)
        with torch.no_grad():
            errors[smoothing] = float((adapter.standardised(codes) - targets).square().mean())
    assert errors[10.0] < 0.9 * errors[0.0]


@pytest.mark.parametrize("smoothing", [0.0, 2.0])
@pytest.mark.parametrize("weighting", ["root", "type"])
def test_by_root_a_type_weighs_the_root_of_its_count_plus_one_and_by_type_as_all(
    tmp_path, monkeypatch, smoothing, weighting
):
    """The weights of all steps of an epoch, summed by type, against the definition."""
    total_V = torch.zeros(V)

    def observed(predicted_UD, target_UD, weights_U):
        # The rows of a step are recognised by their targets, as those of other types differ.
        types_U = torch.cdist(target_UD, COMPRESSOR.standardise(TABLE)).argmin(dim=1)
        total_V.index_add_(0, types_U, weights_U.float())
        return weighted_error(predicted_UD, target_UD, weights_U)

    monkeypatch.setattr(phase1, "weighted_error", observed)
    train(tmp_path, epochs=1, batch_size=16, weighting=weighting, smoothing=smoothing)
    counts_V = count_tokens(TRAIN, V)
    assert (counts_V == 0).any()
    expected_V = counts_V.float().sqrt() + 1 if weighting == "root" else torch.full((V,), 2.0)
    torch.testing.assert_close(total_V, expected_V + smoothing, rtol=1e-4, atol=1e-4)


def test_by_counts_an_occurrence_weighs_one_and_by_root_tokens_without_any_are_rebuilt_better(tmp_path):
    counts_V = count_tokens(TRAIN, V)
    per_occurrence_V, besides_V = type_weights(counts_V, "counts", 0.5)
    assert (per_occurrence_V == 1).all() and (besides_V == 0.5).all()
    unused = (counts_V == 0).nonzero().flatten()
    errors = {}
    for weighting in ("counts", "root", "type"):
        adapter, _ = train(tmp_path / weighting, epochs=100, weighting=weighting)
        codes, targets = TokenRows(TABLE, COMPRESSOR.codes(TABLE), COMPRESSOR, unused, CPU).of(unused)
        with torch.no_grad():
            errors[weighting] = float((adapter.standardised(codes) - targets).square().mean())
    assert errors["type"] < errors["root"] < 0.97 * errors["counts"]


def test_smoothing_adds_that_many_occurrences_of_every_token_to_an_epoch(tmp_path, monkeypatch):
    """The losses of an epoch of one step, against the definition; at a learning rate that moves nothing."""
    seen, smoothing = [], 2.5
    monkeypatch.setattr(phase1, "weighted_error", lambda *given: seen.append(weighted_error(*given)) or seen[-1])
    train(tmp_path, epochs=1, batch_size=len(TRAIN), smoothing=smoothing, lr=1e-30, weight_decay=0.0)
    table, weights = TABLE.double().numpy(), count_tokens(TRAIN, V).double().numpy() + smoothing
    rebuilt = COMPRESSOR.decompress(COMPRESSOR.compress(TABLE)).double().numpy()
    error_V = ((table - rebuilt) ** 2).mean(axis=1) / float(COMPRESSOR.scale) ** 2
    (loss,) = seen
    assert loss.item() == pytest.approx(np.average(error_V, weights=weights), rel=1e-4)


def test_mixed_precision_changes_loss_and_gradient_by_rounding_alone(tmp_path, monkeypatch):
    """On the CPU in bfloat16, as on CUDA: three digits in its products, so 1% of the loss, 3% of the gradient's norm.

    Away from the PCA inverse: there the linear map's gradient vanishes, and rounding is a large share of what is left.
    From the inverse on, the loss of a training in mixed precision ends where that in float32 does.
    """
    bfloat16 = torch.autocast("cpu", dtype=torch.bfloat16)
    adapter = Adapter.from_compressor(COMPRESSOR)
    torch.nn.init.normal_(adapter.mlp[-1].weight, std=0.1, generator=torch.Generator().manual_seed(1))
    torch.nn.init.normal_(adapter.linear.weight, std=0.5, generator=torch.Generator().manual_seed(2))
    ids_U, counts_U = unique_tokens(TRAIN)
    codes_UK, target_UD = TokenRows(TABLE, COMPRESSOR.codes(TABLE), COMPRESSOR, torch.arange(V), CPU).of(ids_U)
    found = []
    for precision in (nullcontext(), bfloat16):
        with precision:
            predicted_UD = adapter.standardised(codes_UK)
        loss = weighted_error(predicted_UD, target_UD, counts_U)
        gradients = torch.autograd.grad(loss, list(adapter.parameters()))
        found.append((loss.item(), torch.cat([gradient.flatten() for gradient in gradients])))
    (exact, exact_gradient), (mixed, mixed_gradient) = found
    assert exact != mixed == pytest.approx(exact, rel=0.01)
    assert (mixed_gradient - exact_gradient).norm() < 0.03 * exact_gradient.norm()

    _, history = train(tmp_path / "float32", epochs=20)
    monkeypatch.setattr(phase1, "autocast", lambda _: bfloat16)
    _, rounded = train(tmp_path / "bfloat16", epochs=20)
    assert rounded[-1]["train_loss"] == pytest.approx(history[-1]["train_loss"], rel=0.05)
    assert rounded[-1]["train_loss"] != history[-1]["train_loss"]


def test_predicting_the_mean_costs_1_on_the_pca_split():
    ids_U, counts_U = unique_tokens(TRAIN)
    _, target_UD = TokenRows(TABLE, COMPRESSOR.codes(TABLE), COMPRESSOR, ids_U, CPU).of(ids_U)
    assert float(weighted_error(torch.zeros_like(target_UD), target_UD, counts_U)) == pytest.approx(1, rel=0.01)


def test_unique_tokens_are_sorted_and_counted():
    ids_U, counts_U = unique_tokens([np.array([5, 1, 5], dtype=np.int32), np.array([2, 5], dtype=np.int32)])
    assert ids_U.tolist() == [1, 2, 5]
    assert counts_U.tolist() == [1, 1, 3]
    assert ids_U.dtype == counts_U.dtype == torch.int64


def test_token_rows_are_found_by_id_whatever_the_order():
    ids = torch.tensor([7, 3, 250])
    codes, targets = TokenRows(TABLE, COMPRESSOR.codes(TABLE), COMPRESSOR, ids, CPU).of(torch.tensor([250, 7, 7]))
    wanted = TABLE[[250, 7, 7]]
    torch.testing.assert_close(codes, COMPRESSOR.compress(wanted), atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(targets, COMPRESSOR.standardise(wanted))


def test_the_logs_metrics_are_those_of_the_reconstruction_stage():
    adapter = Adapter.from_compressor(COMPRESSOR)
    ids_U, counts_U = held_out_types(HELD_OUT, V)
    found = held_out_metrics(
        adapter, TokenRows(TABLE, COMPRESSOR.codes(TABLE), COMPRESSOR, ids_U, CPU), ids_U, counts_U, block=7
    )
    with torch.no_grad():
        rebuilt_UD = adapter(COMPRESSOR.compress(TABLE[ids_U]))
    errors = type_errors(ids_U, rebuilt_UD, TABLE, COMPRESSOR.mean_D)
    expected = summarise(question_sums(errors, ids_U, HELD_OUT, [np.ones(len(ids), dtype=bool) for ids in HELD_OUT]))
    assert expected is not None
    assert found["recon_fvu"] == pytest.approx(expected["fvu"], rel=1e-5)
    assert found["recon_cosine_sim"] == pytest.approx(expected["cosine"], rel=1e-5)
    assert found["recon_rel_error"] == pytest.approx(expected["relative_error"], rel=1e-5)
    ids_N = np.concatenate(HELD_OUT)
    index_N = np.searchsorted(ids_U.numpy(), ids_N)
    assert found["recon_mse"] == pytest.approx(float((rebuilt_UD[index_N] - TABLE[ids_N]).square().mean()), rel=1e-5)


def test_training_rebuilds_held_out_prompts_better_than_the_pca_inverse(tmp_path):
    _, history = train(tmp_path, epochs=40)
    inverse = COMPRESSOR.decompress(COMPRESSOR.compress(TABLE))
    ids_N = np.concatenate(HELD_OUT)
    deviation = (TABLE[ids_N] - COMPRESSOR.mean_D).square().sum()
    fvu_of_pca = float((inverse[ids_N] - TABLE[ids_N]).square().sum() / deviation)
    assert history[0]["recon_fvu"] == pytest.approx(fvu_of_pca, rel=1e-4)
    assert history[-1]["recon_fvu"] < 0.9 * fvu_of_pca
    assert history[-1]["train_loss"] < history[1]["train_loss"]


def test_the_log_has_the_names_that_the_plan_names_in_raw_units(tmp_path):
    train(tmp_path, epochs=1)
    lines = [json.loads(line) for line in (tmp_path / "diagnostics.jsonl").read_text().splitlines()]
    assert {"step", "epoch", "recon_mse", "recon_cosine_sim", "recon_rel_error", "recon_fvu"} <= set(lines[0])
    assert 0 < lines[0]["recon_mse"] < float(TABLE.var())


def test_the_weight_of_the_loss_scales_the_loss_and_not_the_metrics(tmp_path):
    _, single = train(tmp_path / "1", epochs=1)
    _, double = train(tmp_path / "2", epochs=1, recon_weight=2.0)
    assert double[1]["train_loss"] == pytest.approx(2 * single[1]["train_loss"], rel=1e-3)
    assert double[1]["recon_fvu"] == pytest.approx(single[1]["recon_fvu"], rel=1e-2)


def test_the_same_seed_gives_the_same_bytes_and_another_seed_does_not(tmp_path):
    adapters = {}
    for name, seed in [("a", 0), ("b", 0), ("c", 1)]:
        torch.rand(7)  # whatever ran before
        adapter, _ = train(tmp_path / name, seed=seed)
        adapter.save(tmp_path / name / "adapter.safetensors")
        adapters[name] = (tmp_path / name / "adapter.safetensors").read_bytes()
    assert adapters["a"] == adapters["b"] != adapters["c"]
    assert (tmp_path / "a/diagnostics.jsonl").read_bytes() == (tmp_path / "b/diagnostics.jsonl").read_bytes()


@pytest.mark.parametrize("calls", [1, 7, 11])
def test_killed_anywhere_and_started_again_it_gives_the_same_bytes(tmp_path, monkeypatch, calls):
    expected, history = train(tmp_path / "straight")
    standardised, count = Adapter.standardised, iter(range(calls))

    def killed(adapter, z):
        if adapter.training and torch.is_grad_enabled() and next(count, None) is None:
            raise KeyboardInterrupt
        return standardised(adapter, z)

    with monkeypatch.context() as patch:
        patch.setattr(Adapter, "standardised", killed)
        with pytest.raises(KeyboardInterrupt):
            train(tmp_path / "broken")
    found, continued = train(tmp_path / "broken")
    assert continued == history
    for name, tensor in expected.state_dict().items():
        assert torch.equal(found.state_dict()[name], tensor), name
    assert (tmp_path / "broken/diagnostics.jsonl").read_bytes() == (
        tmp_path / "straight/diagnostics.jsonl"
    ).read_bytes()


def test_a_bad_row_in_the_table_stops_it_with_the_step(tmp_path):
    table_VD = TABLE.clone()
    table_VD[int(TRAIN[0][0])] = torch.nan
    with pytest.raises(FloatingPointError, match=r"phase 1: the loss is nan at step \d+;.*embedding table"):
        train(tmp_path, table_VD)


def test_the_table_and_the_compressor_are_left_as_they_are(tmp_path):
    table_VD, mean_D = TABLE.clone(), COMPRESSOR.mean_D.clone()
    train(tmp_path, epochs=1)
    assert torch.equal(TABLE, table_VD)
    assert torch.equal(COMPRESSOR.mean_D, mean_D)


def test_what_trains_on_another_device_is_brought_there():
    """The meta device stands for a GPU: it refuses to mix with CPU tensors."""
    meta = torch.device("meta")
    codes, targets = TokenRows(TABLE, COMPRESSOR.codes(TABLE), COMPRESSOR, torch.arange(V), meta).of(
        torch.tensor([1, 2])
    )
    predicted = Adapter.from_compressor(COMPRESSOR).to(meta).standardised(codes)
    assert weighted_error(predicted, targets, torch.tensor([1, 3])).device == meta


def test_an_adapter_on_a_quantiser_that_declined_the_table_says_what_to_leave_out(tmp_path):
    save_table(tmp_path / "table", TABLE)
    EmbeddingCompressor(D, D, "identity").fit(TABLE).save(tmp_path / "identity")
    decline(tmp_path / "pq8", "15 dimensions are no multiple of groups of 8")
    named = {"train": "train", "held_out": "gate", "table": "table", "compressor": "identity", "codec": "pq8"}
    files = CodecTrainingFiles.of({key: tmp_path / name for key, name in (named | {"output": "out"}).items()})
    with pytest.raises(
        InputError, match=r"no multiple of groups of 8; leave the adapters on it out of evaluate\.arms"
    ):
        run_quantised(files, Phase1(), CPU, seed=0, work=None)
