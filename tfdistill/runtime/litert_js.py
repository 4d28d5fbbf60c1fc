"""LiteRT.js, which runs .tflite files in browsers: its packages, its files, and the types that it takes."""

from tfdistill.utils.npm import NpmPackage, fetched, is_kept

CORE = NpmPackage(
    "@litertjs/core", "2.5.3", "sha512-PlGmbMOq9WitX7FO0jhbdJw9GthatsyuCQXjTt/wJZo0FLaw48q4tz8IwqgqCIkviYGr9OFDL1kCnN4nzWoyJQ=="
)
UTILS = NpmPackage(
    "@litertjs/wasm-utils", "2.5.3", "sha512-4fJiw6tBQnIs+0jH/OQ16nYOiSl8/+zZnn5h2ul8aTKHi05sVqZW580Tmk78pC2kT39A9OYBVdFawteZ/sI1kQ=="
)
# Types of inputs and outputs that it takes.
TYPES = ("float32", "int32", "uint8")
# The builds for browsers with and without relaxed SIMD; it chooses.
_BUILDS = ("litert_wasm_internal", "litert_wasm_compat_internal")


def is_fetched():
    """Whether its packages are in the cache, so that no network is needed."""
    return is_kept(CORE) and is_kept(UTILS)


def files():
    """Returns what a page loads from its own folder, fetched by npm the first time.

    Returns:
        Dict of path in the folder of the page -> bytes.

    Raises:
        RuntimeUnavailableError: if npm is missing or cannot fetch the packages.
    """
    core, utils = fetched(CORE), fetched(UTILS)
    wasm = {f"litert/wasm/{build}.{kind}": core[f"wasm/{build}.{kind}"] for build in _BUILDS for kind in ("js", "wasm")}
    code = {"litert/core/index.js": core["dist/index.js"], "litert/wasm-utils/index.js": utils["dist/index.js"]}
    return {**wasm, **{name: _without_map(content) for name, content in code.items()}, "litert/NOTICE.txt": _NOTICE.encode()}


def not_taken(tensors):
    """Says which inputs and outputs have types that it does not take.

    Args:
        tensors: Pairs of name and type, as NumPy names it.

    Returns:
        The end of a sentence; None if it takes all.
    """
    strange = [f"'{name}' {dtype}" for name, dtype in tensors if dtype not in TYPES]
    return f"LiteRT.js takes inputs and outputs of {', '.join(TYPES)}, and it has {', '.join(strange)}" if strange else None


_NOTICE = f"""{CORE.name} {CORE.version} and {UTILS.name} {UTILS.version}, Copyright Google LLC, under the Apache License 2.0 (LICENSE beside this file).
Unchanged but for the names of source maps, which are left out. Source: https://github.com/google-ai-edge/LiteRT
"""


def _without_map(content):
    """Leaves out the name of the source map, which is not in the folder: developer tools would ask the server for it."""
    return b"\n".join(line for line in content.split(b"\n") if not line.startswith(b"//# sourceMappingURL="))
