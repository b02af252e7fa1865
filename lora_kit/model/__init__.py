"""Weights become a model with trainable adapters."""
