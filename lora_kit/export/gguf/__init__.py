"""Writes and checks GGUF, the file format of llama.cpp and Ollama, without either of them."""
