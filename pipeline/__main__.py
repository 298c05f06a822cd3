"""``python -m pipeline`` is the ``sluice`` command."""

import os
import sys


def main() -> int:
    """Run one command and give its exit code; Ctrl-C may come while modules are still imported."""
    try:
        from pipeline.cli import main as run

        return run()
    except KeyboardInterrupt:
        return 130


def _leave_current_folder() -> None:
    """Take the current folder, which ``python -m`` puts first, off the path: its modules would run with the keys."""
    root = __file__.rsplit(os.sep, 2)[0]
    sys.path.pop(0)
    if root not in sys.path:
        sys.path.insert(0, root)


if __name__ == "__main__":
    if not sys.flags.safe_path:
        _leave_current_folder()
    sys.exit(main())
