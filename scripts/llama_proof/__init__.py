"""A run's GGUF files, as llama.cpp computes them, against the trained adapter on its base."""
