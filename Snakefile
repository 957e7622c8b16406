# LatentWire Stage 1: does a language model still answer from a prompt whose embeddings are compressed 8 times?
from snakemake.utils import min_version

min_version("9.0")


configfile: "config.yaml"


include: "rules/common.smk"
include: "rules/data.smk"
include: "rules/compression.smk"
include: "rules/training.smk"
include: "rules/evaluation.smk"
include: "rules/decisions.smk"
include: "rules/targets.smk"


rule all:
    default_target: True
    input:
        PATHS.verdict,
        PATHS.report,
