# Small decisions, on scores alone, where Snakemake itself runs.
localrules:
    check_ceiling,
    require_ceiling,
    decide_gate,
    final_validation,
    report,


# A checkpoint although nothing asks it: jobs behind an ancient input are examined for changes of their own only when
# a checkpoint has finished, and a gate must not decide on scores that are out of date.
checkpoint check_ceiling:
    input:
        scores=PATHS.scores("ceiling"),
        prompts=PATHS.data("gate"),
    output:
        findings=PATHS.ceiling,
        provenance=provenance(PATHS.ceiling),
    log:
        log_of(PATHS.ceiling),
    threads: 1
    resources:
        **job_resources("prepare"),
    params:
        flags=flags("gate", "threshold") + " " + optional_flag("override_ceiling", config["gate"]["override_ceiling"]),
        bootstrap=bootstrap_flags(),
        code=code("check_ceiling.py"),
    shell:
        "exec {PYTHON} {SCRIPTS}/check_ceiling.py --scores {input.scores} --prompts {input.prompts} {params.flags}"
        " {params.bootstrap} --output {output.findings} > {log} 2>&1"


# Refuses here, before any training waits for its node and is tried again. A checkpoint for the reason above.
checkpoint require_ceiling:
    input:
        ceiling=PATHS.ceiling,
    output:
        allowed=PATHS.training_allowed,
        provenance=provenance(PATHS.training_allowed),
    log:
        log_of(PATHS.training_allowed),
    retries: 0
    threads: 1
    resources:
        **job_resources("prepare"),
    params:
        code=code("require_ceiling.py"),
    shell:
        "exec {PYTHON} {SCRIPTS}/require_ceiling.py --ceiling {input.ceiling} --output {output.allowed} > {log} 2>&1"


checkpoint decide_gate:
    input:
        ceiling=PATHS.ceiling,
        text=PATHS.scores("ceiling"),
        phase1=PATHS.scores("phase1"),
        divergence=PATHS.divergence("phase1"),
        prompts=PATHS.data("gate"),
    output:
        decision=PATHS.gate("{k}", "decision"),
        evidence=PATHS.gate("{k}", "evidence"),
        provenance=provenance(PATHS.gate("{k}", "decision")),
    log:
        log_of(PATHS.gate("{k}", "decision")),
    threads: 1
    resources:
        **job_resources("prepare"),
    params:
        gate=flags("gate", "threshold", "failing")
        + " "
        + optional_flag("force_phase2", config["gate"]["force_phase2"]),
        bootstrap=bootstrap_flags(),
        code=code("gate.py"),
    shell:
        "exec {PYTHON} {SCRIPTS}/gate.py --ceiling {input.ceiling} --text {input.text} --phase1 {input.phase1}"
        " --divergence {input.divergence}"
        " --prompts {input.prompts} --compress_dim {wildcards.k} {params.gate} {params.bootstrap} --decision {output.decision} --evidence {output.evidence} > {log} 2>&1"


rule final_validation:
    input:
        decisions=expand(PATHS.gate("{k}", "decision"), k=DIMS),
        evidence=expand(PATHS.gate("{k}", "evidence"), k=DIMS),
        ceiling=PATHS.ceiling,
        manifest=PATHS.manifest,
        prepared=provenance(PATHS.manifest),
        spectrum=PATHS.spectrum,
        table=PATHS.table,
        scores=PATHS.scores("final"),
        prompts=PATHS.data("final"),
        # What they store is their rate.
        codecs=lambda w: codec_inputs(variants_of("final")),
        reconstruction=per_stage(PATHS.reconstruction),
    output:
        verdict=PATHS.verdict,
        text=str(Path(PATHS.verdict).with_suffix(".md")),
        provenance=provenance(PATHS.verdict),
    log:
        log_of(PATHS.verdict),
    threads: 1
    resources:
        **job_resources("prepare"),
    params:
        flags=" ".join(
            [
                flags("verdict", "cosine", "fvu"),
                f"--compress_dims {' '.join(map(str, DIMS))} --seeds {' '.join(map(str, SEEDS))}",
                f"--exploratory_seeds {' '.join(map(str, seeds_of(DIMS[-1])))}" if DIMS[1:] else "",
            ]
        ),
        training=flags("phase1", "epochs") + " " + flags("adapter", "hidden"),
        bootstrap=bootstrap_flags(),
        code=code("final_validation.py", "latentwire.arms_table"),
        root=PATHS.root,
    shell:
        "exec {PYTHON} {SCRIPTS}/final_validation.py --root {params.root} {params.flags} {params.training}"
        " {params.bootstrap} --configuration {CONFIGURATION} --command {COMMAND:q} --overrides {OVERRIDES:q}"
        " --output {output.verdict} > {log} 2>&1"


rule report:
    input:
        verdict=PATHS.verdict,
    output:
        page=PATHS.report,
        provenance=provenance(PATHS.report),
    log:
        log_of(PATHS.report),
    threads: 1
    resources:
        **job_resources("prepare"),
    params:
        root=PATHS.root,
        code=code("report.py", "latentwire.arms_table"),
        template=content_identity(PACKAGE / "report" / "page.html.jinja"),
    shell:
        "exec {PYTHON} {SCRIPTS}/report.py --root {params.root} --output {output.page} > {log} 2>&1"
