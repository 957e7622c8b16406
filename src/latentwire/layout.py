"""Where an experiment's files are: the one place that names them, for the rules and for the stages that read many.

Arguments may be Snakemake wildcards such as ``"{k}"``. Standard library only: the Snakefile imports this.
"""

from __future__ import annotations

from dataclasses import dataclass


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
        """The folder of one training run."""
        return f"{self.root}/k{k}/seed{seed}/{arm}"

    def adapter(self, k: object, seed: object, arm: str) -> str:
        """A trained adapter."""
        return f"{self.training(k, seed, arm)}/adapter.safetensors"

    def group(self, group: str, k: object = "{k}", seed: object = "{seed}") -> str:
        """The folder of a group of arms that are evaluated with one model load."""
        return {
            "original": f"{self.root}/original",
            "linear": f"{self.root}/k{k}/linear",
            "phase1": f"{self.root}/k{k}/seed{seed}/evaluate_phase1",
            "phase2": f"{self.root}/k{k}/seed{seed}/evaluate_phase2",
        }[group]

    def scores(self, group: str, split: str, k: object = "{k}", seed: object = "{seed}") -> str:
        """Scores of a group's arms on a split, one row a question and arm."""
        return f"{self.group(group, k, seed)}/{split}/scores.parquet"

    def reconstruction(self, k: object, seed: object, stage: str) -> str:
        """Reconstruction metrics of a stage's arms on ``gate``."""
        return f"{self.group(stage, k, seed)}/reconstruction.parquet"

    @property
    def ceiling(self) -> str:
        """What the ceiling check found."""
        return f"{self.root}/ceiling.json"

    @property
    def training_allowed(self) -> str:
        """There where the ceiling allows training."""
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
