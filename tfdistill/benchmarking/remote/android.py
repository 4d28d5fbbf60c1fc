"""An Android device that adb reaches: a folder of its own there, files pushed into it, and commands in its shell."""

import contextlib
import re
import shlex
import subprocess
import threading
import time

from tfdistill.errors import BenchmarkError, RuntimeUnavailableError
from tfdistill.runtime.isolated import standard_descriptors_taken

_FOLDER = re.compile(r"/[A-Za-z0-9_./-]+/tfdistill-[A-Za-z0-9]+")
_SHORT_SECONDS, _POLL_SECONDS = 60.0, 0.1
# What is asked of the device about itself: name of a field -> a command of its shell.
_QUESTIONS = {
    "maker": "getprop ro.product.manufacturer",
    "model": "getprop ro.product.model",
    "chip": "getprop ro.soc.model",
    "android": "getprop ro.build.version.release",
    "machine": "uname -m",
    "cores": "nproc",
    "memory": "grep MemTotal /proc/meminfo",
    "load": "cat /proc/loadavg",
}


class Device:
    """One device.

    Args:
        adb: The adb program.
        serial: Serial number; None for the only device that is connected.

    Raises:
        RuntimeUnavailableError: if there is no adb here.
        BenchmarkError: if there is no such device, or it is not ready; with the words of adb.
    """

    def __init__(self, adb, serial=None):
        self.adb, self.serial = adb, None
        listed = self._listed()
        shown = ", ".join(f"{name} ({state})" for name, state in listed.items()) or "none"
        if serial is None and len(listed) > 1:
            raise BenchmarkError(
                f"Several devices are connected: {shown}.", "one device", f"give one of them as serial=, such as '{next(iter(listed))}'"
            )
        serial = next(iter(listed), None) if serial is None else serial
        if serial not in listed:
            named = "" if serial is None else f" '{serial}'"
            raise BenchmarkError(f"adb lists no device{named}; connected: {shown}.", "a device with USB debugging switched on")
        if listed[serial] != "device":
            waiting = {"unauthorized": "; unlock it and allow this machine's key", "offline": "; connect it anew"}.get(listed[serial], "")
            raise BenchmarkError(f"The device '{serial}' is {listed[serial]}{waiting}.", "a device that adb lists as `device`")
        self.serial = serial

    @contextlib.contextmanager
    def folder(self, parent):
        """Yields a new folder on the device; ends what runs from it and removes it at the end of the block.

        Args:
            parent: Folder to make it in.
        """
        made = self.shell(["mktemp", "-d", f"{parent}/tfdistill-XXXXXXXX"]).strip()
        if not _FOLDER.fullmatch(made):
            raise BenchmarkError(
                f"The device '{self.serial}' made no folder in {parent}: {made!r}.", "a folder that programs can be run from"
            )
        try:
            yield made
        except BaseException:
            # The error of the block is raised; where the device has gone, nothing can be removed.
            with contextlib.suppress(BenchmarkError):
                self._remove(made)
            raise
        self._remove(made)

    def _remove(self, folder):
        # The brackets keep the pattern from matching the shell that this runs in; pkill fails where nothing runs any more.
        self.shell_text(f"pkill -KILL -f {shlex.quote('[/]' + folder[1:])} || true", "end what runs")
        self.shell_text(f"rm -rf {shlex.quote(folder)}", f"remove {folder}")

    def push(self, source, target):
        """Copies a file to the device."""
        self._run(["push", str(source), target], f"take {target.rpartition('/')[2]}", 600.0)

    def shell(self, command, seconds=_SHORT_SECONDS, on_wait=None):
        """Runs a command, given as a list, in the device's shell; returns what it prints."""
        return self.shell_text(shlex.join(command), f"run {command[0].rpartition('/')[2]}", seconds, on_wait)

    def shell_text(self, text, what, seconds=_SHORT_SECONDS, on_wait=None):
        """Runs a text in the device's shell.

        Args:
            text: The text, all values in it quoted.
            what: What it does, for errors.
            seconds: Time limit.
            on_wait: Function that is called regularly with the elapsed seconds.

        Returns:
            What it printed.
        """
        return self._run(["shell", text], what, seconds, on_wait)

    def describe(self):
        """Returns what the device says of itself: dict of the fields of a `HostFingerprint`, and its load average."""
        text = "; ".join(f"echo {name}=$({question} 2>/dev/null)" for name, question in _QUESTIONS.items())
        said = dict(line.partition("=")[::2] for line in self.shell_text(text, "describe itself").splitlines() if "=" in line)
        cores, memory, load = (re.search(r"[0-9.]+", said.get(name, "")) for name in ("cores", "memory", "load"))
        model = " ".join(dict.fromkeys(f"{said.get('maker', '')} {said.get('model', '')}".split()))
        host = {
            "cpu_model": ", ".join(part for part in (model, said.get("chip", "")) if part) or "unknown",
            "machine": said.get("machine") or "unknown",
            "cores": int(cores[0]) if cores else 1,
            "usable_cores": int(cores[0]) if cores else 1,
            "memory_bytes": int(memory[0]) * 1024 if memory else None,
            "os": f"Android {said.get('android', '')}".strip(),
            "python": "",
        }
        return host, float(load[0]) if load else None

    def _listed(self):
        lines = self._run(["devices"], "list devices").splitlines()
        return dict(line.split("\t")[:2] for line in lines if "\t" in line)

    def _run(self, arguments, what, seconds=_SHORT_SECONDS, on_wait=None):
        command = [self.adb, *(["-s", self.serial] if self.serial else []), *arguments]
        try:
            with standard_descriptors_taken():
                child = subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                    text=True,
                    errors="replace",
                )
        except OSError as error:
            raise RuntimeUnavailableError(
                f"'{self.adb}' cannot be started: {error.strerror or error}.", "adb of Android's platform-tools, or its path as adb="
            ) from error
        printed: list[str] = []
        reader = threading.Thread(target=lambda: printed.append(child.stdout.read()), daemon=True)
        reader.start()
        began = time.monotonic()
        try:
            while child.poll() is None:
                elapsed = time.monotonic() - began
                if elapsed > seconds:
                    raise BenchmarkError(f"The device '{self.serial}' was still busy after {seconds:g} s and was left ({what}).")
                if on_wait is not None:
                    on_wait(elapsed)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    child.wait(_POLL_SECONDS)
        finally:
            if child.poll() is None:
                child.kill()
                child.wait()
            reader.join()
            child.stdout.close()
        text = "".join(printed)
        if child.returncode:
            raise self._failed(what, child.returncode, text)
        return text

    def _is_gone(self):
        """Whether adb lists this device no longer. adb itself may say nothing when a device goes away while a command runs."""
        serial, self.serial = self.serial, None
        try:
            return self._listed().get(serial) != "device"
        except BenchmarkError:
            return True
        finally:
            self.serial = serial

    def _failed(self, what, code, text):
        said = "\n".join(text.strip().splitlines()[-15:])
        if self.serial is None:
            return BenchmarkError(f"adb failed with exit code {code}.\nIt said:\n{said}", "a running adb server")
        if self._is_gone():
            return BenchmarkError(
                f"The device '{self.serial}' went away in the middle of the run ({what}).\nIt said:\n{said}",
                "a device that stays connected; its files may still be there in the folder tfdistill-*",
            )
        if "No space left on device" in text:
            return BenchmarkError(f"The device '{self.serial}' has no room to {what}.\nIt said:\n{said}", "free space for the files")
        return BenchmarkError(f"The device '{self.serial}' failed to {what} (exit code {code}).\nIt said:\n{said}")
