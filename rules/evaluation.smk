# Answers, scores and reconstruction of every arm. Arms of one group share one load of the model.
EVALUATION = flags("evaluate", "batch_size", "max_new_tokens", "identity_samples")


for GROUP in GROUP_ARMS:

    rule:
        name:
            f"evaluate_{GROUP}"
        input:
            prompts=PATHS.data("{split}"),
            table=PATHS.table,
            counts=PATHS.counts,
            compressors=compressors(GROUP),
            adapters=adapters(GROUP),
            gates=gates_before_final,
        output:
            predictions=predictions(GROUP),
            provenance=provenance(predictions(GROUP)),
        log:
            log_of(predictions(GROUP)),
        benchmark:
            benchmark_of(predictions(GROUP))
        threads: threads_of("evaluate")
        resources:
            **job_resources("evaluate"),
        params:
            model=model_flags() + " " + flags("model", "dtype"),
            arms=lambda w, group=GROUP: arms_at(group, w),
            dim="" if GROUP == "original" else "--compress_dim {k}",
            evaluation=EVALUATION,
            reads=final_read_flags,
            device=device("evaluate"),
            state=f"{PATHS.root}/state",
            code=lambda w, group=GROUP: arms_code("evaluate.py", arms_at(group, w)),
        shell:
            "exec {PYTHON} {SCRIPTS}/evaluate.py {params.model} --arms {params.arms} --prompts {input.prompts}"
            " --table {input.table} --counts {input.counts} --compressor {input.compressors}"
            " {params.dim} --adapter {input.adapters} {params.evaluation} --shard {wildcards.shard} --shards {SHARDS}"
            " {params.reads} --configuration {CONFIGURATION} --device {params.device} --threads {threads}"
            " --runtime {resources.runtime} --state {params.state} --output {output.predictions} > {log} 2>&1"


for STAGE in STAGES:

    rule:
        name:
            f"measure_reconstruction_{STAGE}"
        input:
            prompts=PATHS.data("gate"),
            table=PATHS.table,
            counts=PATHS.counts,
            compressors=compressors(STAGE),
            adapters=adapters(STAGE),
        output:
            sums=PATHS.reconstruction("{k}", "{seed}", STAGE),
            summary=PATHS.reconstruction("{k}", "{seed}", STAGE).replace(".parquet", ".json"),
            provenance=provenance(PATHS.reconstruction("{k}", "{seed}", STAGE)),
        log:
            log_of(PATHS.reconstruction("{k}", "{seed}", STAGE)),
        benchmark:
            benchmark_of(PATHS.reconstruction("{k}", "{seed}", STAGE))
        threads: threads_of("reconstruction")
        resources:
            **job_resources("reconstruction"),
        params:
            arms=lambda w, stage=STAGE: ["pca", *arms_at(stage, w)],
            code=lambda w, stage=STAGE: arms_code("measure_reconstruction.py", ["pca", *arms_at(stage, w)]),
        shell:
            "exec {PYTHON} {SCRIPTS}/measure_reconstruction.py --arms {params.arms} --prompts {input.prompts}"
            " --table {input.table} --counts {input.counts} --compressor {input.compressors}"
            " --compress_dim {wildcards.k} --adapter {input.adapters} --threads {threads} --output {output.sums}"
            " > {log} 2>&1"


for GROUP in GROUP_ARMS:

    rule:
        name:
            f"score_{GROUP}"
        input:
            predictions=shard_predictions(GROUP),
            prompts=PATHS.data("{split}"),
        output:
            scores=PATHS.scores(GROUP, "{split}"),
            provenance=provenance(PATHS.scores(GROUP, "{split}")),
        log:
            log_of(PATHS.scores(GROUP, "{split}")),
        benchmark:
            benchmark_of(PATHS.scores(GROUP, "{split}"))
        # Seconds of work, without a model.
        localrule: True
        threads: 1
        resources:
            **job_resources("prepare"),
        params:
            evaluation=flags("evaluate", "batch_size", "identity_samples"),
            code=code("score.py"),
        shell:
            "exec {PYTHON} {SCRIPTS}/score.py --predictions {input.predictions} --prompts {input.prompts}"
            " {params.evaluation} --output {output.scores} > {log} 2>&1"
