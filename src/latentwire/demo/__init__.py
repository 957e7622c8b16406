"""The embedded default: an invented question-answering corpus and the small reader trained on it."""
