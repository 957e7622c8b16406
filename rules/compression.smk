# The embedding table and the compressors fitted to it.


rule read_embeddings:
    output:
        table=PATHS.table,
        provenance=provenance(PATHS.table),
    log:
        log_of(PATHS.table),
    benchmark:
        benchmark_of(PATHS.table)
    threads: threads_of("compression")
    resources:
        **job_resources("compression"),
    params:
        model=model_flags(),
        identity=model_identity(),
        code=code("read_embeddings.py"),
    shell:
        "exec {PYTHON} {SCRIPTS}/read_embeddings.py {params.model} --threads {threads} --output {output.table} > {log} 2>&1"


rule fit_pca:
    input:
        table=PATHS.table,
        counts=PATHS.counts,
    output:
        compressor=PATHS.compressor("pca"),
        spectrum=PATHS.spectrum,
        provenance=provenance(PATHS.compressor("pca")),
    log:
        log_of(PATHS.compressor("pca")),
    benchmark:
        benchmark_of(PATHS.compressor("pca"))
    threads: threads_of("compression")
    resources:
        **job_resources("compression"),
    params:
        dim=max(DIMS),
        smoothing=flags("pca", "smoothing"),
        code=code("fit_pca.py"),
    shell:
        "exec {PYTHON} {SCRIPTS}/fit_pca.py --table {input.table} --counts {input.counts} --compress_dim {params.dim}"
        " {params.smoothing} --threads {threads} --output {output.compressor} --spectrum {output.spectrum} > {log} 2>&1"


rule fit_random_projection:
    input:
        table=PATHS.table,
        counts=PATHS.counts,
    output:
        compressor=PATHS.compressor("random"),
        provenance=provenance(PATHS.compressor("random")),
    log:
        log_of(PATHS.compressor("random")),
    benchmark:
        benchmark_of(PATHS.compressor("random"))
    threads: threads_of("compression")
    resources:
        **job_resources("compression"),
    params:
        dim=max(DIMS),
        smoothing=flags("pca", "smoothing"),
        code=code("fit_pca.py"),
    shell:
        "exec {PYTHON} {SCRIPTS}/fit_pca.py --method random --table {input.table} --counts {input.counts}"
        " --compress_dim {params.dim} {params.smoothing} --threads {threads} --output {output.compressor} > {log} 2>&1"
