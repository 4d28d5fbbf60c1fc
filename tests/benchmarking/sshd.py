"""An sshd of one's own on the loopback interface, with keys and a configuration of its own, for the tests that need a board."""

import contextlib
import dataclasses
import os
import pathlib
import signal
import socket
import subprocess
import time

SSHD = "/usr/sbin/sshd"


@dataclasses.dataclass
class Server:
    """A running sshd.

    Attributes:
        folder: Its configuration and keys.
        port: Its port on 127.0.0.1.
        temporary: What programs that it starts use for temporary files (TMPDIR).
    """

    folder: pathlib.Path
    port: int
    temporary: pathlib.Path
    process: subprocess.Popen | None = None

    @property
    def settings(self):
        """Arguments of `Ssh` with which this user is let in, and this server's host key known."""
        return {
            "host": "127.0.0.1",
            "port": self.port,
            "identity": str(self.folder / "user_key"),
            "options": {"UserKnownHostsFile": str(self.known_hosts), "GlobalKnownHostsFile": "/dev/null"},
        }

    @property
    def known_hosts(self):
        """The file of host keys that the settings name."""
        return self.folder / "known_hosts"

    def start(self):
        """Starts it and waits until it listens."""
        command = [SSHD, "-D", "-e", "-f", self.folder / "sshd_config"]
        with open(self.folder / "log", "ab") as log:
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=log, start_new_session=True)
        end = time.monotonic() + 20
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=1) as answer:
                if answer.recv(4) == b"SSH-":
                    return
            if self.process.poll() is not None or time.monotonic() > end:
                raise RuntimeError((self.folder / "log").read_text())
            time.sleep(0.05)

    def stop(self):
        """Ends it; its connections stay."""
        self.process.terminate()
        self.process.wait()

    def connections(self):
        """Returns the process ids of the processes that serve connections."""
        listed = subprocess.run(["ps", "-o", "pid=", "--ppid", str(self.process.pid)], capture_output=True, text=True).stdout
        return [int(number) for number in listed.split()]

    def change_host_key(self):
        """Gives it another host key, as a board has that was set up anew."""
        self.stop()
        _new_key(self.folder / "host_key")
        self.start()

    def leftovers(self):
        """Returns the names of what is left in the folder for temporary files."""
        return sorted(os.listdir(self.temporary))

    def trust(self):
        """Writes its host key into the file of known ones."""
        kind, key, *_ = (self.folder / "host_key.pub").read_text().split()
        self.known_hosts.write_text(f"[127.0.0.1]:{self.port} {kind} {key}\n")


@contextlib.contextmanager
def serving(folder):
    """Yields a `Server` that lets the user of this process in.

    Args:
        folder: An empty folder. It and those above must not be writable by others, which sshd does not trust.
    """
    folder.mkdir(mode=0o700, exist_ok=True)
    server = Server(folder, _free_port(), folder / "tmp")
    server.temporary.mkdir()
    for name in ("host_key", "user_key"):
        _new_key(folder / name)
    (folder / "authorized_keys").write_bytes((folder / "user_key.pub").read_bytes())
    (folder / "sshd_config").write_text(
        f"""
        ListenAddress 127.0.0.1
        Port {server.port}
        HostKey {folder}/host_key
        AuthorizedKeysFile {folder}/authorized_keys
        PidFile none
        StrictModes no
        UsePAM no
        PasswordAuthentication no
        KbdInteractiveAuthentication no
        PermitRootLogin prohibit-password
        PrintMotd no
        SetEnv TMPDIR={server.temporary}
        """
    )
    if os.geteuid() == 0:  # where its children without privileges live
        pathlib.Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
    server.start()
    server.trust()
    try:
        yield server
    finally:
        for pid in server.connections():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        server.stop()


def _new_key(path):
    path.unlink(missing_ok=True)
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", path], check=True)


def _free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
