"""First lines of an isolated process: run by its path, by `tfdistill.runtime.isolated`, with nothing but the standard library to import from."""

import importlib
import importlib.util
import json
import os
import signal
import sys
import threading


def main(settings):
    """Ties the process to its parent, opens the folders it may import from, and runs the module.

    Args:
        settings: See `tfdistill.runtime.isolated.start`.
    """
    if settings["dies_with_thread"]:
        die_with_parent(settings["parent"])
    forbid_core_files()
    if settings["lifetime_seconds"] and hasattr(signal, "setitimer"):
        # The kernel's own default action: it needs neither the interpreter lock nor a live parent.
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.setitimer(signal.ITIMER_REAL, settings["lifetime_seconds"])
    sys.path.extend(settings["paths"])
    # The package without its `__init__`, which is made for users: the modules below it are all that is needed here.
    spec = importlib.util.spec_from_loader("tfdistill", loader=None, is_package=True)
    spec.submodule_search_locations = [settings["package"]]
    sys.modules["tfdistill"] = importlib.util.module_from_spec(spec)
    answers = os.dup(1)
    os.dup2(2, 1)  # what anybody prints is no answer
    importlib.import_module(settings["module"]).main(answers)


def die_with_parent(parent):
    """Makes the kernel kill this process when the thread that started it ends.

    Args:
        parent: Process id of the parent.
    """
    if sys.platform == "linux":
        import ctypes

        pr_set_pdeathsig = 1
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL, 0, 0, 0)
    if hasattr(os, "getppid") and os.name == "posix" and os.getppid() != parent:
        os._exit(1)  # it ended before the line above


def forbid_core_files():
    """Keeps a crash from writing a core file into the user's folder."""
    try:
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    except (ImportError, ValueError, OSError):
        return  # there is no such limit here


def end_with_input():
    """Ends this process when its standard input does, which is when its parent is gone: for systems without a link to the parent.

    Called when the message has been read from standard input.
    """

    def watch():
        while os.read(0, 1):
            continue
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
