"""Training: the two phases, their objectives, and the loop that they share."""
