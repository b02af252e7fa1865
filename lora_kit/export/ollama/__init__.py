"""What Ollama needs beside a GGUF file: a Modelfile with the template in Go's template language."""
