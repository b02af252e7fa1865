"""Scores of one answer against its reference; one file a metric."""
