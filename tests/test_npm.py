"""Packages of npm: fetched once, kept, and only those whose checksum is known."""

import base64
import hashlib
import io
import subprocess
import tarfile

import pytest

from tfdistill.errors import RuntimeUnavailableError
from tfdistill.utils import npm


def archive(text):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as made:
        entry = tarfile.TarInfo("package/dist/index.js")
        entry.size = len(text)
        made.addfile(entry, io.BytesIO(text))
    return buffer.getvalue()


@pytest.fixture
def place(tmp_path, monkeypatch):
    """An empty cache, and an npm that gives what lies beside it and notes that it was asked."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    monkeypatch.setenv("GIVEN", str(tmp_path / "given.tgz"))
    program = tmp_path / "npm"
    program.write_text('#!/bin/sh\necho "$2" >> "$GIVEN.asked"\n[ -f "$GIVEN" ] || exit 1\ncp "$GIVEN" "$4/some-thing-1.0.0.tgz"\n')
    program.chmod(0o755)
    return tmp_path


def package_of(content):
    digest = base64.b64encode(hashlib.sha512(content).digest()).decode()
    return npm.NpmPackage("@some/thing", "1.0.0", f"sha512-{digest}")


def asked(place):
    log = place / "given.tgz.asked"
    return log.read_text().split() if log.is_file() else []


def test_a_package_is_fetched_once(place):
    content = archive(b"first")
    (place / "given.tgz").write_bytes(content)
    for _ in range(2):
        assert npm.fetched(package_of(content)) == {"dist/index.js": b"first"}
    assert asked(place) == ["@some/thing@1.0.0"]


def test_another_archive_is_refused_and_not_kept(place):
    (place / "given.tgz").write_bytes(archive(b"other"))
    with pytest.raises(RuntimeUnavailableError, match="another archive of @some/thing"):
        npm.fetched(package_of(archive(b"first")))
    assert not (npm.cache_folder() / "some-thing-1.0.0.tgz").exists()


def test_a_damaged_archive_in_the_cache_is_fetched_again(place):
    content = archive(b"first")
    (place / "given.tgz").write_bytes(content)
    npm.cache_folder().mkdir(parents=True)
    (npm.cache_folder() / "some-thing-1.0.0.tgz").write_bytes(content[:-9])
    assert npm.fetched(package_of(content)) == {"dist/index.js": b"first"}
    assert len(asked(place)) == 1


def test_what_npm_says_is_in_the_error(place):
    (place / "npm").write_text("#!/bin/sh\necho 'E404: not in this registry' >&2\nexit 1\n")
    with pytest.raises(RuntimeUnavailableError, match="E404: not in this registry") as caught:
        npm.fetched(package_of(b""))
    assert str(npm.cache_folder()) in caught.value.fix


def test_an_npm_that_does_not_end_is_ended(place, monkeypatch):
    (place / "npm").write_text("#!/bin/sh\nexec sleep 60\n")
    monkeypatch.setattr(npm, "_SECONDS", 0.2)
    with pytest.raises(RuntimeUnavailableError, match="timed out") as caught:
        npm.fetched(package_of(b""))
    assert isinstance(caught.value.__cause__, subprocess.TimeoutExpired)
