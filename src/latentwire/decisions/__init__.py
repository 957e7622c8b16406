"""Decisions: the ceiling check, the gate, the verdict. Small, deterministic, on scores alone."""
