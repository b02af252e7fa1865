"""What all judges share: prompts, asking, the journal of judgments, what follows from them."""
