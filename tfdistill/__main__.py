"""`python -m tfdistill` is the command `tfdistill`."""

from tfdistill.cli.app import main

if __name__ == "__main__":
    main()
