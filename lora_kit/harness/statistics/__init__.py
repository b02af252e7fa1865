"""Intervals, tests and verdicts over paired scores."""
