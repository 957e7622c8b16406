"""Data: question-answering sources, splits by article, prompts and their token ids."""
