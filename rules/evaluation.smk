# Answers, scores and reconstruction of every arm. An evaluation loads the model once, or not at all if every answer is
# in the store already; shards are for parallelism alone.


rule evaluate:
    input:
        prompts=lambda w: PATHS.data(EVALUATIONS[w.evaluation]),
        table=PATHS.table,
        counts=PATHS.counts,
        codecs=lambda w: codec_inputs(variants_of(w.evaluation)),
        gates=gates_before_final,
    output:
        predictions=PATHS.predictions("{evaluation}", "{shard}", SHARDS),
        divergence=PATHS.divergence_part("{evaluation}", "{shard}", SHARDS),
        provenance=provenance(PATHS.predictions("{evaluation}", "{shard}", SHARDS)),
    log:
        log_of(PATHS.predictions("{evaluation}", "{shard}", SHARDS)),
    benchmark:
        benchmark_of(PATHS.predictions("{evaluation}", "{shard}", SHARDS))
    threads: threads_of("evaluate")
    resources:
        **job_resources("evaluate"),
    params:
        model=model_flags() + " " + flags("model", "dtype"),
        root=PATHS.root,
        variants=lambda w: list(map(str, variants_of(w.evaluation))),
        own=lambda w: own_codec_flags(variants_of(w.evaluation)),
        evaluation=flags("evaluate", "batch_size", "max_new_tokens", "identity_samples", "divergence_samples"),
        other=lambda w: optional_flag("other_domain", other_domain(w)),
        passages=lambda w: content_identity(Path(other_domain(w))) if other_domain(w) else "",
        reads=final_read_flags,
        device=device("evaluate"),
        state=f"{PATHS.root}/state",
        answers=PATHS.answers,
        code=lambda w: variants_code("evaluate.py", variants_of(w.evaluation)),
    shell:
        "exec {PYTHON} {SCRIPTS}/evaluate.py {params.model} --root {params.root} --variants {params.variants}"
        " --prompts {input.prompts} --table {input.table} --counts {input.counts} {params.own} {params.evaluation}"
        " {params.other} --shard {wildcards.shard} --shards {SHARDS} {params.reads} --configuration {CONFIGURATION}"
        " --device {params.device} --threads {threads} --runtime {resources.runtime} --state {params.state}"
        " --answers {params.answers} --output {output.predictions} --divergence {output.divergence} > {log} 2>&1"


rule score:
    input:
        predictions=of_all_shards(PATHS.predictions("{evaluation}", "{shard}", SHARDS)),
        divergence=of_all_shards(PATHS.divergence_part("{evaluation}", "{shard}", SHARDS)),
        prompts=lambda w: PATHS.data(EVALUATIONS[w.evaluation]),
    output:
        scores=PATHS.scores("{evaluation}"),
        divergence=PATHS.divergence("{evaluation}"),
        provenance=provenance(PATHS.scores("{evaluation}")),
    log:
        log_of(PATHS.scores("{evaluation}")),
    benchmark:
        benchmark_of(PATHS.scores("{evaluation}"))
    # Seconds of work, without a model.
    localrule: True
    threads: 1
    resources:
        **job_resources("prepare"),
    params:
        evaluation=flags("evaluate", "batch_size", "identity_samples", "scoring"),
        code=code("score.py"),
    shell:
        "exec {PYTHON} {SCRIPTS}/score.py --predictions {input.predictions} --prompts {input.prompts}"
        " {params.evaluation} --divergence {input.divergence} --output {output.scores}"
        " --output_divergence {output.divergence} > {log} 2>&1"


rule measure_reconstruction:
    input:
        prompts=PATHS.data("gate"),
        table=PATHS.table,
        counts=PATHS.counts,
        codecs=lambda w: codec_inputs(measured_variants(w)),
    output:
        sums=PATHS.reconstruction("{k}", "{seed}", "{stage}"),
        summary=str(Path(PATHS.reconstruction("{k}", "{seed}", "{stage}")).with_suffix(".json")),
        provenance=provenance(PATHS.reconstruction("{k}", "{seed}", "{stage}")),
    log:
        log_of(PATHS.reconstruction("{k}", "{seed}", "{stage}")),
    benchmark:
        benchmark_of(PATHS.reconstruction("{k}", "{seed}", "{stage}"))
    threads: threads_of("reconstruction")
    resources:
        **job_resources("reconstruction"),
    params:
        model=model_flags(),
        identity=model_identity(),
        root=PATHS.root,
        variants=lambda w: list(map(str, measured_variants(w))),
        own=lambda w: own_codec_flags(measured_variants(w)),
        code=lambda w: variants_code("measure_reconstruction.py", measured_variants(w)),
    shell:
        "exec {PYTHON} {SCRIPTS}/measure_reconstruction.py {params.model} --root {params.root} --variants {params.variants}"
        " {params.own} --prompts {input.prompts} --table {input.table} --counts {input.counts} --threads {threads}"
        " --output {output.sums} > {log} 2>&1"
