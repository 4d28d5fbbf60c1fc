"""Fetches packages of npm: each once, in one version whose checksum is known."""

import base64
import dataclasses
import hashlib
import io
import os
import pathlib
import shutil
import subprocess
import tarfile

from tfdistill.errors import RuntimeUnavailableError
from tfdistill.utils.files import temporary_folder, write_whole
from tfdistill.utils.progress import progress

_SECONDS = 600


@dataclasses.dataclass(frozen=True)
class NpmPackage:
    """A version of a package.

    Attributes:
        name: Name, such as `@litertjs/core`.
        version: Version.
        integrity: Checksum of its archive as npm has it: `sha512-` and the SHA-512 in base64.
    """

    name: str
    version: str
    integrity: str

    @property
    def file_name(self):
        """Name that npm gives to the archive."""
        return f"{self.name.removeprefix('@').replace('/', '-')}-{self.version}.tgz"


def cache_folder():
    """Returns the folder where archives are kept: under XDG_CACHE_HOME, or else ~/.cache."""
    return pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache", "tfdistill", "npm")


def fetched(package):
    """Reads a package, from the cache or else from npm.

    Args:
        package: A `NpmPackage`.

    Returns:
        Dict of path in the package -> bytes.

    Raises:
        RuntimeUnavailableError: if npm is not installed or cannot fetch it, or it is another archive than expected.
    """
    kept = cache_folder() / package.file_name
    if not _is_whole(kept, package):
        content = _packed(package)
        with write_whole(kept) as temporary:
            temporary.write_bytes(content)
    with tarfile.open(fileobj=io.BytesIO(kept.read_bytes()), mode="r:gz") as archive:
        files = (member for member in archive.getmembers() if member.isfile())
        return {member.name.partition("/")[2]: archive.extractfile(member).read() for member in files}


def is_kept(package):
    """Whether a package is in the cache."""
    return _is_whole(cache_folder() / package.file_name, package)


def _is_whole(path, package):
    return path.is_file() and _integrity(path.read_bytes()) == package.integrity


def _integrity(content):
    return f"sha512-{base64.b64encode(hashlib.sha512(content).digest()).decode()}"


def _packed(package):
    """Fetches an archive by npm, which knows the proxies and registries of its user."""
    npm = shutil.which("npm")
    if npm is None:
        raise RuntimeUnavailableError(
            f"The program 'npm' is not installed; it is needed once, to fetch {package.name} {package.version}.",
            "npm on the search path, or the archive in the cache",
            f"install Node.js, or copy the archive to '{cache_folder() / package.file_name}' from a machine that has fetched it",
        )
    with temporary_folder() as folder, progress(f"Fetching {package.name}"):
        command = [npm, "pack", f"{package.name}@{package.version}", "--pack-destination", str(folder), "--silent"]
        try:
            done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=_SECONDS, stdin=subprocess.DEVNULL)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise _not_fetched(package, str(error)) from error
        archive = folder / package.file_name
        if done.returncode or not archive.is_file():
            raise _not_fetched(package, (done.stderr or done.stdout).strip() or f"npm ended with {done.returncode}")
        content = archive.read_bytes()
    if _integrity(content) != package.integrity:
        raise RuntimeUnavailableError(
            f"npm gave another archive of {package.name} {package.version}: its checksum is {_integrity(content)}.", f"{package.integrity}"
        )
    return content


def _not_fetched(package, why):
    return RuntimeUnavailableError(
        f"npm cannot fetch {package.name} {package.version}: {why}",
        "a registry that has it",
        f"put the archive of another machine's cache into '{cache_folder()}'",
    )
