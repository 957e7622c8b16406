# Questions, prompts and token counts.


rule prepare_data:
    output:
        splits=[PATHS.data(split) for split in ("train", "gate", "final")],
        manifest=PATHS.manifest,
        provenance=provenance(PATHS.manifest),
    log:
        log_of(PATHS.manifest),
    benchmark:
        benchmark_of(PATHS.manifest)
    threads: threads_of("prepare")
    resources:
        **job_resources("prepare"),
    params:
        model=model_flags(),
        identity=model_identity(),
        source=source_identity(),
        prompt=flags("model", "prompt_style", "system_prompt", "template_arguments"),
        data=flags("data", *all_but("data", "revision")) + " " + flags("data", "revision", prefix="data_"),
        # The verdict and the report read the provenance of the data.
        code=code("prepare_data.py", "latentwire.provenance.write_provenance"),
        folder=f"{PATHS.root}/data",
    shell:
        "exec {PYTHON} {SCRIPTS}/prepare_data.py {params.model} {params.prompt} {params.data}"
        " {LONGEST_ANSWER} --threads {threads} --output {params.folder} > {log} 2>&1"


rule count_tokens:
    input:
        train=PATHS.data("train"),
        table=PATHS.table,
    output:
        counts=PATHS.counts,
        provenance=provenance(PATHS.counts),
    log:
        log_of(PATHS.counts),
    benchmark:
        benchmark_of(PATHS.counts)
    threads: threads_of("prepare")
    resources:
        **job_resources("prepare"),
    params:
        pca=flags("pca", "samples"),
        code=code("count_tokens.py"),
    shell:
        "exec {PYTHON} {SCRIPTS}/count_tokens.py --train {input.train} --table {input.table} {params.pca}"
        " --threads {threads} --output {output.counts} > {log} 2>&1"
