"""``python -m pipeline`` is the ``sluice`` command."""

from __future__ import annotations

import sys


def main() -> int:
    """Run one command and give its exit code; Ctrl-C may come while modules are still imported."""
    try:
        from pipeline.cli import main as run

        return run()
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
