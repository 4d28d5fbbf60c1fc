"""What went wrong on the way to a board or there, from the words of ssh, the shell and the board's programs."""

import dataclasses
import errno
import re
import shlex

from tfdistill.errors import BenchmarkError
from tfdistill.runtime.isolated import describe_exit

# Exit code of ssh for its own failures, and of a shell for a command that it does not find or may not run.
_SSH, _NOT_FOUND, _NOT_EXECUTABLE = 255, 127, 126


def said(log):
    """Returns what a program said, as the end of a message."""
    return f"\nIt said:\n{log}" if log else ""


@dataclasses.dataclass
class State:
    """How far a run has come.

    Attributes:
        ready: Whether the program that receives files runs on the board.
        started: Whether all files have arrived.
        ended: Exit code of the program, or minus the signal that ended it; None if it has not ended.
        failed: Why no program was run, as the board says it.
        answers: Number of messages of the program.
    """

    ready: bool = False
    started: bool = False
    ended: int | None = None
    failed: dict | None = None
    answers: int = 0

    def take(self, message):
        """Notes a message."""
        self.ready = self.ready or "ready" in message
        self.started = self.started or "started" in message
        self.ended = message.get("ended", self.ended)
        self.failed = message if "failed" in message else self.failed
        self.answers += "line" in message

    def require_whole(self, target, code, log):
        """Raises unless the program has ended on the board, or answered before it crashed.

        Args:
            target: The `Ssh`.
            code: Exit code of ssh.
            log: What ssh and the programs on the board printed.
        """
        if self.failed is not None:
            raise _no_room(target, self.failed)
        if self.ended == 0 or (self.ended is not None and self.answers):
            return  # a crash after the answer is the crash of what follows it, the measurement of memory
        if self.ended is not None:
            memory = "; the board may have run out of memory" if self.ended == -9 else ""
            raise BenchmarkError(f"The measuring process on {target.host} {describe_exit(self.ended)}{memory}.{said(log)}")
        if self.ready:
            raise BenchmarkError(
                f"The connection to {target.host} ended in the middle of the run.{said(log)}", "a board that stays on and connected"
            )
        raise _not_there(target, code, log)


def _no_room(target, failed):
    if failed.get("errno") in (errno.ENOSPC, errno.EDQUOT):
        return BenchmarkError(
            f"{target.host} has no room for the files in '{failed.get('folder')}': {failed['failed']}.",
            "free space for the file and the runner",
        )
    return BenchmarkError(f"{target.host} did not take the files: {failed['failed']}.", "a folder for temporary files that can be written")


def _not_there(target, code, log):
    """Makes the error of a board on which nothing was run."""
    if code in (_NOT_FOUND, _NOT_EXECUTABLE):
        return BenchmarkError(
            f"{target.host} does not run '{target.python}'.{said(log)}",
            "Python 3.8 or later on the board",
            "give the path that Python has there, such as python='/usr/bin/python3'",
        )
    if code != _SSH:
        return BenchmarkError(
            f"'{target.python}' on {target.host} ended with exit code {code}.{said(log)}", "Python 3.8 or later on the board"
        )
    words = log.lower()
    if "identification has changed" in words:
        return BenchmarkError(
            f"The host key of {target.host} is another one than before.{said(log)}",
            "the key that this machine knows; another one may mean that somebody else answers",
            f"if the board was set up anew, remove its old key: {_forget(target, log)}",
        )
    if "host key verification failed" in words:
        return BenchmarkError(
            f"The host key of {target.host} is not known here.{said(log)}",
            "a host key that you have confirmed",
            f"connect once and compare the fingerprint: {' '.join(target.command(batch=False))}",
        )
    if "permission denied" in words:
        return BenchmarkError(
            f"{target.host} does not let this user in.{said(log)}",
            "a key that the board knows: passwords cannot be asked for here",
            "give the file of such a key as identity=",
        )
    return BenchmarkError(f"{target.host} cannot be reached.{said(log)}", "a board that is on and answers to ssh")


def _forget(target, log):
    """Returns the command that removes an old host key: ssh's own, where it says one."""
    found = re.search(r"ssh-keygen (?:-f \"?[^\s\"]+\"? )?-R \"?[^\s\"]+\"?", log)
    host = target.host.rpartition("@")[2]
    return found[0] if found else shlex.join(["ssh-keygen", "-R", host if target.port is None else f"[{host}]:{target.port}"])
