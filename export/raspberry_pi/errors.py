"""The error of these programs."""

import sys


class KitError(Exception):
    """Something that a person can mend.

    Args:
        happened: What went wrong.
        fix: What to do about it, or None.
    """

    def __init__(self, happened, fix=None):
        super().__init__(happened + (f"\nFix: {fix}" if fix else ""))
        self.happened, self.fix = happened, fix


def run(main):
    """Runs a program: a `KitError` is printed as a message, and Ctrl-C ends it without a traceback."""
    try:
        code = main()
    except KitError as error:
        print(f"Error: {error}", file=sys.stderr)
        code = 1
    except KeyboardInterrupt:
        code = 130
    sys.exit(code)


def require_numpy():
    """Checks that NumPy is installed.

    Raises:
        KitError: if not.
    """
    try:
        import numpy  # noqa: F401
    except ImportError as error:
        raise KitError(
            f"NumPy is not installed for {sys.executable}: {error}.",
            "install it (sudo apt install python3-numpy), or make a virtual environment with it and the runtime, as install.sh of the kit does",
        ) from error
