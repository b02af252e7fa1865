"""Micro-batches and a model become checkpoints and an adapter."""
