"""Runs seen from outside: which there are, how far they are, how they differ; reads what is on disk."""
