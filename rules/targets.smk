# Targets by name. What belongs to the experiment is asked of the gates, never read off existing files.


rule data:
    input:
        PATHS.manifest,
        PATHS.counts,


rule pca:
    input:
        PATHS.compressor("pca"),


rule phase1:
    input:
        [PATHS.adapter(k, seed, "phase1") for k in DIMS for seed in seeds_of(k)],
        PATHS.scores("phase1"),


rule gate:
    input:
        expand(PATHS.gate("{k}", "decision"), k=DIMS),


rule phase2:
    input:
        expand(PATHS.gate("{k}", "decision"), k=DIMS),
        lambda w: [
            PATHS.adapter(k, seed, variant.arm)
            for k in DIMS
            if runs_phase2(k)
            for seed in seeds_of(k)
            for variant in trained_variants(k, seed, "phase2")
        ],


# Compares every artefact with its producer's record; asks for none, so that it makes none.
rule verify:
    log:
        f"{PATHS.root}/logs/verify.log",
    retries: 0
    localrule: True
    threads: 1
    resources:
        **job_resources("prepare"),
    params:
        root=PATHS.root,
    shell:
        "{PYTHON} {SCRIPTS}/verify.py --root {params.root} 2>&1 | tee {log}"


rule final:
    input:
        PATHS.verdict,
