"""Browsers with LiteRT.js."""

from tfdistill.kits.npm import NpmPackage, fetched
from tfdistill.kits.refusals import Obstacle, free_size

NAME = "web"
CORE = NpmPackage(
    "@litertjs/core", "2.5.3", "sha512-PlGmbMOq9WitX7FO0jhbdJw9GthatsyuCQXjTt/wJZo0FLaw48q4tz8IwqgqCIkviYGr9OFDL1kCnN4nzWoyJQ=="
)
UTILS = NpmPackage(
    "@litertjs/wasm-utils", "2.5.3", "sha512-4fJiw6tBQnIs+0jH/OQ16nYOiSl8/+zZnn5h2ul8aTKHi05sVqZW580Tmk78pC2kT39A9OYBVdFawteZ/sI1kQ=="
)
# Types of inputs and outputs that LiteRT.js has.
_TYPES = ("float32", "int32", "uint8")
# The builds for browsers with and without relaxed SIMD; LiteRT.js chooses.
_BUILDS = ("litert_wasm_internal", "litert_wasm_compat_internal")


def refusals(description, report):
    """Lists inputs and outputs of types that LiteRT.js does not take, and those of any size."""
    found = []
    strange = [t for t in (*description["inputs"], *description["outputs"]) if t["dtype"] not in _TYPES]
    if strange:
        named = ", ".join(f"'{t['name']}' {t['dtype']}" for t in strange)
        quantized = all(t["scale"] is not None for t in strange)
        found.append(
            Obstacle(
                f"LiteRT.js takes inputs and outputs of {', '.join(_TYPES)}, and it has {named}",
                fix="export it with io='uint8' or io='float32'; the file computes in the same integers" if quantized else "",
            )
        )
    found += [free_size(t["tensor"], t["free_axes"]) for t in description.layout["inputs"] if t["free_axes"]]
    return found


def made_files(description):
    """Returns the runtime, which the page loads from its own folder."""
    core, utils = fetched(CORE), fetched(UTILS)
    wasm = {f"litert/wasm/{build}.{kind}": core[f"wasm/{build}.{kind}"] for build in _BUILDS for kind in ("js", "wasm")}
    code = {"litert/core/index.js": core["dist/index.js"], "litert/wasm-utils/index.js": utils["dist/index.js"]}
    return {**wasm, **{name: _without_map(content) for name, content in code.items()}, "litert/NOTICE.txt": _NOTICE.encode()}


_NOTICE = f"""{CORE.name} {CORE.version} and {UTILS.name} {UTILS.version}, Copyright Google LLC, under the Apache License 2.0 (LICENSE beside this file).
Unchanged but for the names of source maps, which are left out. Source: https://github.com/google-ai-edge/LiteRT
"""


def _without_map(content):
    """Leaves out the name of the source map, which is not in the kit: developer tools would ask the server for it."""
    return b"\n".join(line for line in content.split(b"\n") if not line.startswith(b"//# sourceMappingURL="))
