"""What is particular to each family of models; one file a family."""
