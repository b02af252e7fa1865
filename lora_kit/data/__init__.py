"""A row on disk becomes a micro-batch, through small typed values."""
