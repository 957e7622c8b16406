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
        axes="--method random",
        dim=f"--compress_dim {max(DIMS)}",
        smoothing=flags("pca", "smoothing"),
        code=code("fit_pca.py"),
    shell:
        "exec {PYTHON} {SCRIPTS}/fit_pca.py {params.axes} --table {input.table} --counts {input.counts} {params.dim}"
        " {params.smoothing} --threads {threads} --output {output.compressor} > {log} 2>&1"


# By the root of counts, and by type: rarer tokens weigh more than in the plan's compressor.
use rule fit_random_projection as fit_weighted_pca with:
    output:
        compressor=PATHS.compressor("pca_{weighting}"),
        provenance=provenance(PATHS.compressor("pca_{weighting}")),
    log:
        log_of(PATHS.compressor("pca_{weighting}")),
    benchmark:
        benchmark_of(PATHS.compressor("pca_{weighting}"))
    params:
        axes="--weighting {weighting}",
        dim=f"--compress_dim {max(DIMS)}",
        smoothing="",
        code=code("fit_pca.py"),


# For the control that compresses nothing: its code dimension is the table's width, which is known when it is read.
use rule fit_random_projection as fit_identity with:
    output:
        compressor=PATHS.compressor("identity"),
        provenance=provenance(PATHS.compressor("identity")),
    log:
        log_of(PATHS.compressor("identity")),
    benchmark:
        benchmark_of(PATHS.compressor("identity"))
    params:
        axes="--method identity",
        dim="",
        smoothing=flags("pca", "smoothing"),
        code=code("fit_pca.py"),


# Stores the table in the form that it is decoded from.
rule fit_codec:
    input:
        table=PATHS.table,
        counts=PATHS.counts,
        compressor=lambda w: PATHS.compressor(COMPRESSORS[w.codec]) if w.codec in COMPRESSORS else [],
    output:
        codes=f"{PATHS.fitted('{k}', '{codec}')}/codes.safetensors",
        decoder=f"{PATHS.fitted('{k}', '{codec}')}/decoder.safetensors",
        config=f"{PATHS.fitted('{k}', '{codec}')}/config.json",
        provenance=provenance(f"{PATHS.fitted('{k}', '{codec}')}/config.json"),
    log:
        log_of(PATHS.fitted("{k}", "{codec}")),
    benchmark:
        benchmark_of(PATHS.fitted("{k}", "{codec}"))
    threads: threads_of("compression")
    resources:
        **job_resources("compression"),
    params:
        dim=lambda w: optional_flag("compress_dim", w.get("k")),
        compressor=lambda w, input: optional_flag("compressor", input.get("compressor") or None),
        file=lambda w: optional_flag("file", OWN_CODECS.get(w.codec)),
        folder=lambda w, output: Path(output.config).parent,
        code=lambda w: codec_code(w.codec),
    shell:
        "exec {PYTHON} {SCRIPTS}/fit_codec.py --codec {wildcards.codec} {params.file} --table {input.table}"
        " --counts {input.counts} {params.compressor} {params.dim} --threads {threads}"
        " --output {params.folder} > {log} 2>&1"


# Those that do not depend on the code dimension.
use rule fit_codec as fit_table_codec with:
    output:
        codes=f"{PATHS.fitted(None, '{codec}')}/codes.safetensors",
        decoder=f"{PATHS.fitted(None, '{codec}')}/decoder.safetensors",
        config=f"{PATHS.fitted(None, '{codec}')}/config.json",
        provenance=provenance(f"{PATHS.fitted(None, '{codec}')}/config.json"),
    log:
        log_of(PATHS.fitted(None, "{codec}")),
    benchmark:
        benchmark_of(PATHS.fitted(None, "{codec}"))
