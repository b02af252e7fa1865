"""What answers prompts and measures likelihoods; one file an engine."""
