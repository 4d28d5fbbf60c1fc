"""Copies the modules that boards and this machine share from the package to the kit of boards.

python docs/make_kits.py          writes the copies
python docs/make_kits.py --check  writes nothing; fails if one differs
"""

import argparse
import pathlib
import sys

ROOT = pathlib.Path(__file__).parents[1]
KIT = ROOT / "export/raspberry_pi"
# Standard library and NumPy only, in the syntax of Python 3.8.
SHARED = (
    "tfdistill/benchmarking/measuring.py",
    "tfdistill/benchmarking/process_memory.py",
    "tfdistill/runtime/delegated.py",
    "tfdistill/utils/machine.py",
)


def copies():
    """Returns a dict of the path of each copy -> its bytes."""
    return {KIT / pathlib.PurePath(path).name: (ROOT / path).read_bytes() for path in SHARED}


def main():
    """Writes the copies, or compares them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; fail if a copy differs")
    check = parser.parse_args().check
    old = [path for path, content in copies().items() if not path.exists() or path.read_bytes() != content]
    for path in old:
        print(f"{'differs' if check else 'written'}: {path.relative_to(ROOT)}")
        if not check:
            path.write_bytes(copies()[path])
    sys.exit(bool(old) and check)


if __name__ == "__main__":
    main()
