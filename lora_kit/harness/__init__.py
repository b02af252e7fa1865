"""A checkpoint and a suite become scores; knows nothing of training."""
