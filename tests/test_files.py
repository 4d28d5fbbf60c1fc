"""`write_whole` against links, special files, permissions, names, kills and other threads."""

import os
import pathlib
import signal
import socket
import stat
import subprocess
import sys
import threading

import numpy as np
import pytest

from tfdistill.errors import ConfigurationError
from tfdistill.host import fingerprint
from tfdistill.records import Record
from tfdistill.utils import files
from tfdistill.utils.files import clear_leftovers, open_regular, temporary_folder, write_whole


def put(path, text="new", **settings):
    with write_whole(path, **settings) as temporary:
        temporary.write_text(text)


def names(folder):
    return sorted(os.listdir(folder))


# Destinations that exist, and what stands behind them afterwards.


def a_link(folder):
    (folder / "real.txt").write_text("old")
    (folder / "out.txt").symlink_to("real.txt")


def a_link_to_a_link(folder):
    a_link(folder)
    (folder / "out.txt").rename(folder / "between")
    (folder / "out.txt").symlink_to(folder / "between")


def a_link_into_another_folder(folder):
    (folder / "other").mkdir()
    (folder / "other" / "real.txt").write_text("old")
    (folder / "out.txt").symlink_to(folder / "other" / "real.txt")


def a_link_to_nothing(folder):
    (folder / "out.txt").symlink_to("real.txt")


def a_linked_folder(folder):
    (folder / "other").mkdir()
    (folder / "out.txt").symlink_to("other/real.txt")


@pytest.mark.parametrize("make", [a_link, a_link_to_a_link, a_link_into_another_folder, a_link_to_nothing, a_linked_folder])
def test_a_link_is_written_through(tmp_path, make):
    make(tmp_path)
    before = names(tmp_path)
    target = pathlib.Path(os.path.realpath(tmp_path / "out.txt"))
    put(tmp_path / "out.txt")
    assert (tmp_path / "out.txt").is_symlink()
    assert target.is_file()
    assert target.read_text() == "new"
    assert set(names(tmp_path)) == {*before, *([target.name] if target.parent == tmp_path else [])}
    assert names(target.parent).count(target.name) == 1


def a_pipe(path):
    os.mkfifo(path)


def a_socket(path):
    server = socket.socket(socket.AF_UNIX)
    server.bind(str(path))
    server.close()


def a_loop(path):
    path.symlink_to(path)


def a_read_only_file(path):
    path.write_text("old")
    path.chmod(0o444)


REFUSED = {
    "a pipe": (a_pipe, "named pipe"),
    "a link to a pipe": (lambda p: (a_pipe(p.with_name("pipe")), p.symlink_to("pipe")), "named pipe"),
    "a socket": (a_socket, "a socket"),
    "a link to a device": (lambda p: p.symlink_to("/dev/null"), "a device"),
    "a folder": (lambda p: p.mkdir(), "is a folder"),
    "a link to a folder": (lambda p: (p.with_name("inner").mkdir(), p.symlink_to("inner")), "is a folder"),
    "a loop": (a_loop, "leads to itself|Symbolic link loop|Too many levels"),
    "a read-only file": (a_read_only_file, r"read-only \(mode 444\)"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_no_writable_file_is_refused_and_stays(tmp_path, monkeypatch, case):
    monkeypatch.chdir(tmp_path)  # a socket's path may have 108 bytes
    path = pathlib.Path("out.txt")
    make, words = REFUSED[case]
    make(path)
    before, kinds = names(tmp_path), [p.lstat().st_mode for p in sorted(tmp_path.iterdir())]
    with pytest.raises(ConfigurationError, match=words):
        put(path)
    assert names(tmp_path) == before
    assert [p.lstat().st_mode for p in sorted(tmp_path.iterdir())] == kinds


def test_the_remedy_for_a_read_only_file_works(tmp_path):
    path = tmp_path / "out.txt"
    a_read_only_file(path)
    with pytest.raises(ConfigurationError) as error:
        put(path)
    command = error.value.fix.split("allow it: ")[1]
    assert command.startswith("os.chmod(")
    exec(command, {"os": os})
    put(path)
    assert path.read_text() == "new"


def test_links_can_be_refused(tmp_path):
    a_link(tmp_path)
    with pytest.raises(ConfigurationError, match="symbolic link"):
        put(tmp_path / "out.txt", follow_links=False)
    assert (tmp_path / "real.txt").read_text() == "old"
    put(tmp_path / "real.txt", follow_links=False)
    assert (tmp_path / "out.txt").read_text() == "new"


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o644, 0o666, 0o755, 0o200])
def test_a_file_keeps_its_permissions(tmp_path, mode):
    path = tmp_path / "out.txt"
    path.write_text("old")
    path.chmod(mode)
    before = path.stat()
    put(path)
    after = path.stat()
    assert (after.st_mode, after.st_uid, after.st_gid) == (before.st_mode, before.st_uid, before.st_gid)
    assert after.st_ino != before.st_ino


@pytest.mark.parametrize("mask", ["022", "077", "002", "000", "027"])
def test_a_new_file_has_the_permissions_that_open_gives(tmp_path, mask):
    """In a process of its own, as the umask is the whole process's."""
    code = (
        f"import os, sys; os.umask(0o{mask}); sys.path.insert(0, {str(pathlib.Path(files.__file__).parents[2])!r})\n"
        "from tfdistill.utils.files import write_whole\n"
        "seen = []\n"
        "os.umask, real = lambda mask: seen.append(mask), os.umask\n"
        "with write_whole('ours') as temporary: temporary.write_text('')\n"
        "open('plain', 'w').close()\n"
        "print(seen, oct(os.stat('ours').st_mode) == oct(os.stat('plain').st_mode))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["[]", "True"]


def test_nobody_else_can_look_at_what_is_being_written(tmp_path):
    with write_whole(tmp_path / "out.txt") as temporary:
        assert stat.S_IMODE(temporary.parent.stat().st_mode) == 0o700
        assert temporary.parent.parent == tmp_path


NAMES = {
    "the longest": "n" * 255,
    "247 bytes and a suffix": "n" * 240 + ".tflite",
    "a long suffix": "a." + "s" * 253,
    "two-byte letters": "ä" * 124 + ".tflite",
    "no UTF-8": os.fsdecode(b"m\xff\xfe.tflite"),
    "a suffix that is no UTF-8": os.fsdecode(b"m.\xff"),
    "a dot": ".hidden",
    "spaces and quotes": " a'b\"c\n.json",
    "a leading dash": "-rf",
    "a glob": "*[a]?.json",
    "the lock's own": ".tfdistill.lock",
}


@pytest.mark.parametrize("case", NAMES)
def test_every_legal_name_can_be_written(tmp_path, case):
    path = tmp_path / NAMES[case]
    for text in ("first", "second"):
        with write_whole(path) as temporary:
            temporary.name.encode("utf-8")
            temporary.write_text(text)
        assert path.read_text() == text
        assert names(tmp_path) == [path.name]


@pytest.mark.parametrize(("name", "words"), [("n" * 256, "too long"), ("a\0b", "null")])
def test_an_illegal_name_is_said(tmp_path, name, words):
    with pytest.raises(ConfigurationError, match=words):
        put(tmp_path / name)
    assert names(tmp_path) == []


def test_a_record_can_hold_and_have_any_name(tmp_path):
    """Of a file whose name is no UTF-8, written under such a name."""
    import dataclasses

    @dataclasses.dataclass(frozen=True)
    class Written(Record):
        path: str
        host: object = None

    name = os.fsdecode(b"m\xff.json")
    record = Written(path=str(tmp_path / name), host=fingerprint().to_dict())
    record.save(tmp_path / name)
    assert Written.load(tmp_path / name).path == str(tmp_path / name)


class Stopped(BaseException):
    pass


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, Stopped, MemoryError])
@pytest.mark.parametrize("put_a_folder", [False, True])
def test_a_block_that_raises_leaves_the_old_file(tmp_path, error, put_a_folder):
    path = tmp_path / "out.txt"
    path.write_text("old")

    def act():
        with write_whole(path) as temporary:
            if put_a_folder:
                temporary.unlink()
                temporary.mkdir()
                (temporary / "inner").write_text("half")
            raise error

    with pytest.raises(error):
        act()
    assert names(tmp_path) == ["out.txt"]
    assert path.read_text() == "old"


JOB = (
    "import sys, time; sys.path.insert(0, {root!r})\n"
    "from tfdistill.utils.files import write_whole\n"
    "with write_whole({path!r}) as temporary:\n"
    "    temporary.write_text('half')\n"
    "    print('writing', flush=True)\n"
    "    time.sleep(60)\n"
)


def writer(path):
    """A process that has begun to write `path`, and does not end."""
    code = JOB.format(root=str(pathlib.Path(files.__file__).parents[2]), path=str(path))
    child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert child.stdout.readline() == "writing\n"
    child.stdout.close()
    return child


def kill(child, how=signal.SIGKILL):
    child.send_signal(how)
    child.wait()


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_leftovers_of_killed_writers_go_and_living_writers_stay(tmp_path, how):
    dead, alive = (writer(tmp_path / name) for name in ("dead.tflite", "alive.tflite"))
    try:
        assert len(names(tmp_path)) == 2
        kill(dead, how)
        assert len(names(tmp_path)) == 2
        put(tmp_path / "out.txt")
        (left,) = (name for name in names(tmp_path) if name != "out.txt")
        assert (tmp_path / left / "alive.tflite").read_text() == "half"
    finally:
        kill(alive)
    put(tmp_path / "out.txt", "again")
    assert names(tmp_path) == ["out.txt"]


def test_a_temporary_folder_of_a_killed_process_goes(tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(files.tempfile, "tempdir", None)
    code = JOB.format(root=str(pathlib.Path(files.__file__).parents[2]), path="").replace("write_whole('')", "temporary_folder()")
    code = code.replace("import write_whole", "import temporary_folder").replace("temporary.write_text", "(temporary / 'x').write_text")
    child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert child.stdout.readline() == "writing\n"
    child.stdout.close()
    with temporary_folder() as folder:
        assert folder.parent == tmp_path
        assert len(names(tmp_path)) == 2
    kill(child)
    assert len(names(tmp_path)) == 1
    with temporary_folder() as folder:
        assert names(tmp_path) == [folder.name]
        (folder / "inner").mkdir()
    assert names(tmp_path) == []


def test_what_only_looks_like_a_leftover_stays(tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / ".tfdistill.lock").write_text("")
    (outside / "mine").write_text("mine")
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / ".tfdistill-abcdefgh").symlink_to(outside)
    (folder / ".tfdistill-abcdefg1").write_text("a file")
    (folder / ".tfdistill-abcdefg2").mkdir()
    (folder / ".tfdistill-abcdefg2" / "no lock").write_text("mine")
    (folder / ".tfdistill-abcdefg3").mkdir()
    (folder / ".tfdistill-abcdefg3" / ".tfdistill.lock").symlink_to(outside / "mine")
    (folder / ".tfdistill-notes").mkdir()
    (folder / ".out.abcdefgh.tflite").write_text("mine")
    before = sorted(str(p) for p in folder.rglob("*"))
    clear_leftovers(folder)
    put(folder / ".tfdistill-notes" / "x")
    (folder / ".tfdistill-notes" / "x").unlink()
    assert sorted(str(p) for p in folder.rglob("*")) == before
    assert (outside / "mine").read_text() == "mine"


def test_many_threads_write_one_file(tmp_path):
    """Each of them clears leftovers too; none takes another's for one."""
    texts, failed = [str(i) * 1000 for i in range(6)], []

    def work(text):
        try:
            for _ in range(20):
                put(tmp_path / "out.txt", text)
                assert (tmp_path / "out.txt").read_text() in texts
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=work, args=(text,)) for text in texts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    assert names(tmp_path) == ["out.txt"]


@pytest.mark.parametrize(
    ("make", "number"), [(a_loop, "ELOOP"), (a_pipe, "EINVAL"), (lambda p: p.mkdir(), "EINVAL"), (lambda p: None, "ENOENT")]
)
def test_only_regular_files_are_opened(tmp_path, make, number):
    import errno

    make(tmp_path / "x")
    with pytest.raises(OSError, match=r"\[Errno") as error:
        open_regular(tmp_path / "x")
    assert error.value.errno == getattr(errno, number)


def test_an_array_is_written_where_a_link_points(tmp_path):
    """A writer that opens the temporary path itself, and chooses its format by the suffix."""
    (tmp_path / "out.npy").symlink_to("deep.npy")
    with write_whole(tmp_path / "out.npy") as temporary:
        np.save(temporary, np.arange(3))
    np.testing.assert_array_equal(np.load(tmp_path / "deep.npy"), np.arange(3))


@pytest.mark.parametrize("name", [NAMES["247 bytes and a suffix"], NAMES["no UTF-8"]])
def test_an_export_goes_through_a_link_and_keeps_permissions(tmp_path, name):
    from small import mlp

    from tfdistill.tflite import export_tflite

    (tmp_path / "real").mkdir()
    target = tmp_path / "real" / name
    target.write_bytes(b"old")
    target.chmod(0o600)
    (tmp_path / "m.tflite").symlink_to(target)
    record = export_tflite(mlp(4), tmp_path / "m.tflite", verify_on=np.zeros((16, 8), "float32"))
    assert record.size_bytes == target.stat().st_size > 100
    assert stat.S_IMODE(target.stat().st_mode) == 0o600
    assert names(tmp_path / "real") == [name]
    record.save(tmp_path / "record.json")
    assert type(record).load(tmp_path / "record.json") == record
