"""Runs scripts in new processes that cost no import of TensorFlow: each is a fork of one that has imported Keras and tfdistill, and computed nothing.

What a script finds is what it would find after `import keras, tfdistill` in a process of its own: no device is set up, nothing is traced, no random number drawn.
Tests of what an import does, or of settings that are read while TensorFlow is imported, start a process of their own.
"""

import atexit
import multiprocessing
import os
import pathlib
import runpy
import subprocess
import sys
import tempfile

IMPORTED = ["tensorflow", "keras", "tfdistill"]
_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(IMPORTED)


def several_devices():
    """Returns the present environment for a process that trains on several devices, which wait for each other: each needs a thread of its own."""
    return {name: value for name, value in os.environ.items() if not name.startswith("TF_NUM_")}


class Running:
    """A script that runs in a process of its own.

    Args:
        what: Path of the script, or name of the module whose `__main__` is run.
        arguments: Its command line.
        cwd: Folder to run in; the present one by default.
        env: Its environment; the present one by default.
    """

    def __init__(self, what, *arguments, cwd=None, env=None):
        self._argv = [str(what), *map(str, arguments)]
        self._folder = tempfile.TemporaryDirectory()
        self._printed = [pathlib.Path(self._folder.name, name) for name in ("stdout", "stderr")]
        settings = (self._argv, str(cwd or pathlib.Path.cwd()), dict(os.environ if env is None else env), list(map(str, self._printed)))
        self._process = _CONTEXT.Process(target=_main, args=settings)
        self._process.start()

    def finish(self, timeout=300):
        """Waits until it ends, kills it if it does not in time, and returns a `subprocess.CompletedProcess`."""
        self._process.join(timeout)
        late = self._process.exitcode is None
        self.kill()
        printed = [path.read_text() if path.exists() else "" for path in self._printed]
        self._folder.cleanup()
        if late:
            raise subprocess.TimeoutExpired(self._argv, timeout, *printed)
        return subprocess.CompletedProcess(self._argv, self._process.exitcode, *printed)

    def kill(self):
        """Ends it, if it has not ended."""
        self._process.kill()
        self._process.join()


def run(what, *arguments, cwd=None, env=None, timeout=300):
    """Runs a script or module to its end; returns a `subprocess.CompletedProcess`."""
    return Running(what, *arguments, cwd=cwd, env=env).finish(timeout)


def _main(argv, cwd, env, printed):
    for number, path in enumerate(printed, 1):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT), number)
    os.environ.clear()
    os.environ.update(env)
    os.chdir(cwd)
    is_script = argv[0].endswith(".py")
    first = os.path.dirname(argv[0]) if is_script else cwd
    sys.path[:0] = [first, *filter(None, env.get("PYTHONPATH", "").split(os.pathsep))]
    sys.argv = argv
    try:
        (runpy.run_path if is_script else _run_module)(argv[0], run_name="__main__")
    finally:
        atexit._run_exitfuncs()  # what a process of its own does at its end


def _run_module(name, run_name):
    runpy.run_module(name, run_name=run_name, alter_sys=True)
