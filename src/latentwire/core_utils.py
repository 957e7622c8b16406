"""``batch_metrics`` under the name from which the experiment's original scripts import it."""

from latentwire.evaluation.squad_metrics import batch_metrics

__all__ = ["batch_metrics"]
