"""llama.cpp's own quantizer as a process: SOURCE.gguf OUT.gguf FILE_TYPE; see ``k_quants``."""

import ctypes
import os
import sys

MOST_BUFFER_BYTES = 256 << 20  # it would keep rows of up to 8 GiB at once


def main(source: str, out: str, file_code: str) -> int:
    """Quantize; what llama.cpp says goes to stderr."""
    import llama_cpp

    settings = llama_cpp.llama_model_quantize_default_params()
    settings.ftype = int(file_code)
    settings.nthread = os.cpu_count() or 1
    if hasattr(settings, "max_buf_size"):  # since 0.3.30 or so
        settings.max_buf_size = MOST_BUFFER_BYTES
    return int(llama_cpp.llama_model_quantize(source.encode(), out.encode(), ctypes.byref(settings)))


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
