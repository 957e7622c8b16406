# Phase 1, its random-projection control, and its steps on a quantiser's rows; Phase 2, its control without the prompt's
# log-perplexity, Phase 2 by distillation, and its steps on a linear code.


rule train_phase1:
    input:
        train=PATHS.data("train"),
        held_out=PATHS.data("gate"),
        table=PATHS.table,
        compressor=lambda w: PATHS.compressor(ARMS[w.arm].codec),
        codes=codes_of(None),
        allowed=ancient(PATHS.training_allowed),
    output:
        adapter=PATHS.adapter("{k}", "{seed}", "{arm}"),
        config=f"{PATHS.training('{k}', '{seed}', '{arm}')}/config.json",
        diagnostics=f"{PATHS.training('{k}', '{seed}', '{arm}')}/diagnostics.jsonl",
        summary=f"{PATHS.training('{k}', '{seed}', '{arm}')}/summary.json",
        provenance=provenance(PATHS.adapter("{k}", "{seed}", "{arm}")),
    log:
        log_of(PATHS.adapter("{k}", "{seed}", "{arm}")),
    benchmark:
        benchmark_of(PATHS.adapter("{k}", "{seed}", "{arm}"))
    wildcard_constraints:
        arm="|".join(TRAINED["phase1"]),
    threads: threads_of("phase1")
    resources:
        **job_resources("phase1"),
    params:
        phase1=flags("phase1", *config["phase1"]) + " " + flags("adapter", *config["adapter"]),
        weighting=lambda w: ARMS[w.arm].weighting,
        device=device("phase1"),
        code=code("train_phase1.py"),
        state=f"{PATHS.root}/state",
        codec=lambda w, input: Path(input.codes).parent,
        folder=lambda w, output: Path(output.adapter).parent,
    shell:
        "exec {PYTHON} {SCRIPTS}/train_phase1.py --train {input.train} --held_out {input.held_out}"
        " --table {input.table} --compressor {input.compressor} --codec {params.codec} --compress_dim {wildcards.k}"
        " --seed {wildcards.seed} {params.phase1} --weighting {params.weighting} --device {params.device} --threads {threads}"
        " --runtime {resources.runtime} --state {params.state} --output {params.folder} > {log} 2>&1"


# What Phase 1's network makes of rows that a quantiser has rebuilt.
rule train_quantised:
    input:
        train=PATHS.data("train"),
        held_out=PATHS.data("gate"),
        table=PATHS.table,
        compressor=PATHS.compressor("identity"),
        codec=lambda w: [f"{PATHS.fitted(None, ARMS[w.arm].codec)}/{name}" for name in CODEC_FILES],
        allowed=ancient(PATHS.training_allowed),
    output:
        adapter=PATHS.adapter(None, "{seed}", "{arm}"),
        config=f"{PATHS.training(None, '{seed}', '{arm}')}/config.json",
        diagnostics=f"{PATHS.training(None, '{seed}', '{arm}')}/diagnostics.jsonl",
        summary=f"{PATHS.training(None, '{seed}', '{arm}')}/summary.json",
        provenance=provenance(PATHS.adapter(None, "{seed}", "{arm}")),
    log:
        log_of(PATHS.adapter(None, "{seed}", "{arm}")),
    benchmark:
        benchmark_of(PATHS.adapter(None, "{seed}", "{arm}"))
    wildcard_constraints:
        arm="|".join(QUANTISED),
    threads: threads_of("phase1")
    resources:
        **job_resources("phase1"),
    params:
        phase1=flags("phase1", *config["phase1"]) + " " + flags("adapter", *config["adapter"]),
        weighting=lambda w: ARMS[w.arm].weighting,
        device=device("phase1"),
        code=code("train_quantised.py"),
        state=f"{PATHS.root}/state",
        codec=lambda w, input: Path(input.codec[0]).parent,
        folder=lambda w, output: Path(output.adapter).parent,
    shell:
        "exec {PYTHON} {SCRIPTS}/train_quantised.py --train {input.train} --held_out {input.held_out}"
        " --table {input.table} --compressor {input.compressor} --codec {params.codec}"
        " --seed {wildcards.seed} {params.phase1} --weighting {params.weighting} --device {params.device} --threads {threads}"
        " --runtime {resources.runtime} --state {params.state} --output {params.folder} > {log} 2>&1"


rule train_phase2:
    input:
        decision=PATHS.gate("{k}", "decision"),
        adapter=PATHS.adapter("{k}", "{seed}", "phase1"),
        # The control loads no language model; what one says of it is measured where it is loaded anyway.
        control=lambda w: [] if w.arm == "control" else PATHS.adapter(w.k, w.seed, "control"),
        train=PATHS.data("train"),
        held_out=PATHS.data("gate"),
        table=PATHS.table,
        compressor=PATHS.compressor("pca"),
        codes=codes_of("phase1"),
    output:
        adapter=PATHS.adapter("{k}", "{seed}", "{arm}"),
        config=f"{PATHS.training('{k}', '{seed}', '{arm}')}/config.json",
        diagnostics=f"{PATHS.training('{k}', '{seed}', '{arm}')}/diagnostics.jsonl",
        summary=f"{PATHS.training('{k}', '{seed}', '{arm}')}/summary.json",
        provenance=provenance(PATHS.adapter("{k}", "{seed}", "{arm}")),
    log:
        log_of(PATHS.adapter("{k}", "{seed}", "{arm}")),
    benchmark:
        benchmark_of(PATHS.adapter("{k}", "{seed}", "{arm}"))
    wildcard_constraints:
        arm="|".join(arm for arm in TRAINED["phase2"] if not ARMS[arm].own_codes),
    priority: 10
    threads: threads_of("phase2")
    resources:
        **job_resources("phase2"),
    params:
        model=model_flags() + " " + flags("model", "dtype"),
        phase2=flags("phase2", *all_but("phase2", "beta")),
        beta=lambda w: "--beta 0" if w.arm == "control" else flags("phase2", "beta"),
        objective=lambda w: "--objective distillation" if w.arm == "distilled" else "",
        device=device("phase2"),
        launch=lambda w: "" if w.arm == "control" else in_processes("phase2"),
        code=code("train_phase2.py"),
        state=f"{PATHS.root}/state",
        codec=lambda w, input: Path(input.codes).parent,
        control=lambda w, input: optional_flag("control", input.get("control") or None),
        folder=lambda w, output: Path(output.adapter).parent,
    shell:
        "exec {PYTHON} {params.launch} {SCRIPTS}/train_phase2.py {params.model} --decision {input.decision} --adapter {input.adapter} {params.control}"
        " --train {input.train} --held_out {input.held_out} --table {input.table} --compressor {input.compressor} --codec {params.codec}"
        " --compress_dim {wildcards.k} --seed {wildcards.seed} {params.phase2} {params.beta} {params.objective}"
        " --device {params.device} --threads {threads} --runtime {resources.runtime}"
        " --state {params.state} --output {params.folder} > {log} 2>&1"


# Phase 2's steps on a linear code and its inverse, from PCA's. It reads the table itself; its codes are made at the end.
rule train_bottleneck:
    input:
        decision=PATHS.gate("{k}", "decision"),
        train=PATHS.data("train"),
        held_out=PATHS.data("gate"),
        table=PATHS.table,
        compressor=PATHS.compressor("pca"),
    output:
        adapter=PATHS.adapter("{k}", "{seed}", "{arm}"),
        codes=f"{PATHS.training('{k}', '{seed}', '{arm}')}/codes.safetensors",
        config=f"{PATHS.training('{k}', '{seed}', '{arm}')}/config.json",
        diagnostics=f"{PATHS.training('{k}', '{seed}', '{arm}')}/diagnostics.jsonl",
        summary=f"{PATHS.training('{k}', '{seed}', '{arm}')}/summary.json",
        provenance=provenance(PATHS.adapter("{k}", "{seed}", "{arm}")),
    log:
        log_of(PATHS.adapter("{k}", "{seed}", "{arm}")),
    benchmark:
        benchmark_of(PATHS.adapter("{k}", "{seed}", "{arm}"))
    wildcard_constraints:
        arm="|".join(arm for arm in TRAINED["phase2"] if ARMS[arm].own_codes),
    threads: threads_of("phase2")
    resources:
        **job_resources("phase2"),
    params:
        model=model_flags() + " " + flags("model", "dtype"),
        phase2=flags("phase2", *config["phase2"]),
        device=device("phase2"),
        launch=in_processes("phase2"),
        code=code("train_bottleneck.py"),
        state=f"{PATHS.root}/state",
        folder=lambda w, output: Path(output.adapter).parent,
    shell:
        "exec {PYTHON} {params.launch} {SCRIPTS}/train_bottleneck.py {params.model} --decision {input.decision}"
        " --train {input.train} --held_out {input.held_out} --table {input.table} --compressor {input.compressor}"
        " --compress_dim {wildcards.k} --seed {wildcards.seed} {params.phase2}"
        " --device {params.device} --threads {threads} --runtime {resources.runtime}"
        " --state {params.state} --output {params.folder} > {log} 2>&1"


# Phase 2's steps on the prompt's cross-entropy alone, from the identity: what adaptation to the domain is worth where
# nothing was compressed. No gate is asked: none says anything of uncompressed embeddings.
rule train_uncompressed:
    input:
        train=PATHS.data("train"),
        held_out=PATHS.data("gate"),
        table=PATHS.table,
        compressor=lambda w: PATHS.compressor(COMPRESSORS[ARMS[w.arm].codec]),
        codes=lambda w: f"{PATHS.fitted(None, ARMS[w.arm].codec)}/codes.safetensors",
        allowed=ancient(PATHS.training_allowed),
    output:
        adapter=PATHS.adapter(None, "{seed}", "{arm}"),
        config=f"{PATHS.training(None, '{seed}', '{arm}')}/config.json",
        diagnostics=f"{PATHS.training(None, '{seed}', '{arm}')}/diagnostics.jsonl",
        summary=f"{PATHS.training(None, '{seed}', '{arm}')}/summary.json",
        provenance=provenance(PATHS.adapter(None, "{seed}", "{arm}")),
    log:
        log_of(PATHS.adapter(None, "{seed}", "{arm}")),
    benchmark:
        benchmark_of(PATHS.adapter(None, "{seed}", "{arm}"))
    wildcard_constraints:
        arm="|".join(UNCOMPRESSED),
    threads: threads_of("phase2")
    resources:
        **job_resources("phase2"),
    params:
        model=model_flags() + " " + flags("model", "dtype"),
        # The identity has no error of reconstruction to be balanced by.
        phase2=flags("phase2", *all_but("phase2", "alpha")) + " --alpha 0 " + flags("adapter", *config["adapter"]),
        device=device("phase2"),
        launch=in_processes("phase2"),
        code=code("train_phase2.py"),
        state=f"{PATHS.root}/state",
        codec=lambda w, input: Path(input.codes).parent,
        folder=lambda w, output: Path(output.adapter).parent,
    shell:
        "exec {PYTHON} {params.launch} {SCRIPTS}/train_phase2.py {params.model}"
        " --train {input.train} --held_out {input.held_out} --table {input.table} --compressor {input.compressor}"
        " --codec {params.codec} --seed {wildcards.seed} {params.phase2}"
        " --device {params.device} --threads {threads} --runtime {resources.runtime}"
        " --state {params.state} --output {params.folder} > {log} 2>&1"
