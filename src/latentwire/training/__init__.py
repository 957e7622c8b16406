"""Training: the two phases, their shared loop pieces, and resumable state."""
