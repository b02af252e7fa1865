"""What a run leaves on disk: tensors and JSON, never a pickle."""
