"""How each architecture is named and laid out in GGUF; one file each."""
