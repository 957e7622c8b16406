"""Scoring of generated answers, and the uncertainty of the scores."""
