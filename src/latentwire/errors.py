"""The one error class for what a user can mend: its message names the value, the place and the way out."""

from __future__ import annotations


class InputError(ValueError):
    """Input that can't be used: a configuration, a data set, a model, or an earlier stage's result."""
