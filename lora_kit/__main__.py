"""Entry point of ``lora-kit`` and of ``python -m lora_kit``."""

import sys


def main() -> None:
    """Run the command line and exit with its code."""
    from lora_kit.cli.threads import sleep_soon_if_busy

    sleep_soon_if_busy(next(iter(sys.argv[1:]), ""))
    from lora_kit.cli.app import run

    sys.exit(run(sys.argv[1:]))


if __name__ == "__main__":
    main()
