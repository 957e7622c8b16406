"""What lets long work end early and continue: requests to stop, names for its state, checkpoints."""
