"""Receives files and a request over standard input, runs a program on them in a folder of its own, and sends back what it says.

`tfdistill.benchmarking.Ssh` sends this program to a board as the text that Python runs. Standard library only. The folder is removed at the end, whatever the end is:
when the program has ended, crashed or run out of memory, and when standard input closes because the connection or the other side has gone.

Standard input has one line of JSON with the sizes of what follows, and then the files. Every line on standard output that begins with the token of that line is a
message; all else, such as what a login script prints, is none.
"""

import contextlib
import hashlib
import json
import os
import pathlib
import runpy
import select
import shutil
import signal
import sys
import tempfile


class Receiver:
    """What was sent, and the way back.

    Args:
        source: Binary file that the header and the files are read from.
    """

    def __init__(self, source):
        self.source, self.header = source, json.loads(source.readline())
        self.child = None

    def say(self, **message):
        """Sends a message."""
        sys.stdout.write(self.header["token"] + json.dumps(message) + "\n")
        sys.stdout.flush()

    def receive(self, folder):
        """Writes the files into a folder.

        Raises:
            OSError: if they do not fit there.
            EOFError: if the connection ends before all of them have come.
        """
        for entry in self.header["files"]:
            left, digest = entry["size"], hashlib.sha256()
            with open(os.path.join(folder, entry["name"]), "wb") as file:
                while left:
                    block = self.source.read(min(left, 1 << 16))
                    if not block:
                        raise EOFError("the connection ended")
                    file.write(block)
                    digest.update(block)
                    left -= len(block)
            if digest.hexdigest() != entry["sha256"]:
                raise EOFError(f"{entry['name']} arrived with other bytes than were sent")

    def run(self, folder):
        """Runs the program and passes on its lines; returns its exit code, or minus the signal that ended it, or None if the other side has gone."""
        reading, writing = os.pipe()
        self.child = os.fork()
        if self.child == 0:
            os.close(reading)
            _become(folder, self.header["run"], writing)
        os.close(writing)
        lines, gone = b"", False
        while not gone:
            ready, _, _ = select.select([reading, self.source.fileno()], [], [])
            if reading in ready:
                block = os.read(reading, 1 << 16)
                if not block:
                    break
                *whole, lines = (lines + block).split(b"\n")
                for line in whole:
                    self.say(line=json.loads(line))
            gone = reading not in ready and not os.read(self.source.fileno(), 1 << 16)
        os.close(reading)
        if gone:
            return None
        return self._ended()

    def end(self):
        """Ends the program and all that it started, if it still runs."""
        if self.child is not None:
            with contextlib.suppress(ProcessLookupError, PermissionError):  # it has no group of its own yet
                os.killpg(self.child, signal.SIGKILL)
            with contextlib.suppress(ProcessLookupError, ChildProcessError):  # it has ended
                os.kill(self.child, signal.SIGKILL)
                os.waitpid(self.child, 0)

    def _ended(self):
        _, status = os.waitpid(self.child, 0)
        self.child = None
        return -os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)


def _become(folder, command, writing):
    """Runs a program in this process, which is a child of its own group, and ends it."""
    code = 1
    try:
        os.setsid()
        _be_the_first_to_end()
        nothing = os.open(os.devnull, os.O_RDONLY)
        os.dup2(nothing, 0)
        os.dup2(2, 1)  # printed text, that of native code too, goes where it does not mix with messages
        os.chdir(folder)
        sys.path.insert(0, folder)
        sys.dont_write_bytecode = True
        script, *arguments = command
        sys.argv = [script, *arguments, "--result-fd", str(writing)]
        try:
            runpy.run_path(os.path.join(folder, script), run_name="__main__")
            code = 0
        except SystemExit as ended:
            code = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
            if isinstance(ended.code, str):
                sys.stderr.write(ended.code + "\n")
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def _be_the_first_to_end():
    """Asks the kernel to end this process before its parent where memory runs out: the parent says so and cleans up."""
    try:
        pathlib.Path("/proc/self/oom_score_adj").write_text("1000")
    except OSError:
        return  # not Linux, or a container that forbids it


def _stop(number, frame):
    raise SystemExit(128 + number)


def main():
    """Receives, runs, answers and cleans up."""
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        signal.signal(number, _stop)
    receiver, folder = Receiver(sys.stdin.buffer), None
    try:
        folder = tempfile.mkdtemp(prefix="tfdistill-")
        receiver.say(ready=folder, python=sys.version.split()[0])
        receiver.receive(folder)
        receiver.say(started=True)
        code = receiver.run(folder)
        if code is not None:
            receiver.say(ended=code)
    except OSError as error:
        receiver.say(failed=f"{error.strerror or error}", folder=folder or "the folder for temporary files", errno=error.errno)
    except EOFError as error:
        receiver.say(failed=str(error), folder=folder)
    finally:
        receiver.end()
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)


main()
