"""Language models that answer SQuAD questions: bases from the hub or a GGUF file, tuned, and merged."""
