"""Where an experiment's files are: the one place that names them, for the rules and for the stages that read many.

Arguments may be Snakemake wildcards such as ``"{k}"``. Standard library only: the Snakefile imports this.
"""

from __future__ import annotations

from dataclasses import dataclass

from latentwire.arms_table import Variant, arm_row


@dataclass(frozen=True)
class Layout:
    """Paths of one experiment under ``root`` (``results/<experiment>``)."""

    root: str

    def data(self, split: str) -> str:
        """A split's prepared prompts."""
        return f"{self.root}/data/{split}.parquet"

    @property
    def manifest(self) -> str:
        """Counts, hashes and dropped questions of the prepared data."""
        return f"{self.root}/data/manifest.json"

    @property
    def table(self) -> str:
        """The model's embedding table."""
        return f"{self.root}/model/embeddings.safetensors"

    @property
    def counts(self) -> str:
        """Token counts of the PCA split and of all training prompts."""
        return f"{self.root}/pca/token_counts.safetensors"

    def compressor(self, method: str) -> str:
        """The fitted compressor, up to the largest dimension."""
        return f"{self.root}/pca/{method}.safetensors"

    @property
    def spectrum(self) -> str:
        """Eigenvalues and explained variance."""
        return f"{self.root}/pca/spectrum.tsv"

    def training(self, k: object, seed: object, arm: str) -> str:
        """The folder of one training run, which holds its codec; ``k`` is None if there is no code dimension."""
        return f"{self.root}/{'' if k is None else f'k{k}/'}seed{seed}/{arm}"

    def adapter(self, k: object, seed: object, arm: str) -> str:
        """A trained adapter."""
        return f"{self.training(k, seed, arm)}/adapter.safetensors"

    def fitted(self, k: object, codec: str) -> str:
        """The folder of an untrained codec; of one that does not depend on the code dimension, ``k`` is None."""
        return f"{self.root}/codecs/{codec}" if k is None else f"{self.root}/k{k}/codecs/{codec}"

    def codec(self, variant: Variant) -> str | None:
        """The folder of the codec that an arm is, or decodes; None for arms without one."""
        row = arm_row(variant.arm)
        if row.stage is not None:
            return self.training(variant.k, variant.seed, row.error_of or variant.arm)
        return None if row.codec is None else self.fitted(variant.k, row.codec)

    @property
    def answers(self) -> str:
        """The folder of all answers that were generated, for later runs."""
        return f"{self.root}/answers"

    def predictions(self, evaluation: str, shard: object = "{shard}", shards: object = 1) -> str:
        """One shard's answers of an evaluation."""
        return f"{self.root}/evaluation/{evaluation}/predictions.{shard}-of-{shards}.jsonl"

    def divergence_part(self, evaluation: str, shard: object = "{shard}", shards: object = 1) -> str:
        """One shard of :meth:`divergence`."""
        return f"{self.root}/evaluation/{evaluation}/divergence.{shard}-of-{shards}.parquet"

    def divergence(self, evaluation: str) -> str:
        """How far an evaluation's arms move the model's predictions, one row per question, variant and subset."""
        return f"{self.root}/evaluation/{evaluation}/divergence.parquet"

    def scores(self, evaluation: str) -> str:
        """Scores of an evaluation's arms, one row per question, arm, code dimension and seed."""
        return f"{self.root}/evaluation/{evaluation}/scores.parquet"

    def reconstruction(self, k: object, seed: object, stage: str) -> str:
        """Reconstruction metrics of a training stage's arms on ``gate``."""
        return f"{self.root}/k{k}/seed{seed}/reconstruction/{stage}.parquet"

    @property
    def ceiling(self) -> str:
        """What the ceiling check found."""
        return f"{self.root}/ceiling.json"

    @property
    def training_allowed(self) -> str:
        """Exists if the ceiling allows training."""
        return f"{self.root}/training_allowed.json"

    def gate(self, k: object, name: str) -> str:
        """``decision`` (run_phase2 and nothing else) or ``evidence`` of one gate."""
        return f"{self.root}/k{k}/gate/{name}.json"

    @property
    def final_reads(self) -> str:
        """The folder that records every configuration under which ``final`` was read."""
        return f"{self.root}/final_reads"

    @property
    def verdict(self) -> str:
        """The verdict, as data."""
        return f"{self.root}/verdict/verdict.json"

    @property
    def report(self) -> str:
        """The report."""
        return f"{self.root}/report.html"
