"""Scores and the training log become tables, plots and pages."""
