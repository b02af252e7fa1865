"""What scripts/torture does to training runs, a kind of harm a module."""
