"""What to do: the recipe, its schema, its loader and its fingerprint. Never imports torch."""
