"""Entry script of an isolated process, run by its path by `tfdistill.runtime.isolated`. It can import only the standard library at first."""

import importlib
import importlib.util
import json
import os
import signal
import sys
import threading


def main(settings):
    """Sets the limits and import folders of the process and runs its module.

    Args:
        settings: The dict that `tfdistill.runtime.isolated.start` makes.
    """
    if settings["dies_with_thread"]:
        die_with_parent(settings["parent"])
    forbid_core_files()
    if settings["lifetime_seconds"] and hasattr(signal, "setitimer"):
        # With the default action the kernel ends the process, which needs neither the interpreter lock nor a live parent.
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.setitimer(signal.ITIMER_REAL, settings["lifetime_seconds"])
    sys.path.extend(settings["paths"])
    # A package without the code of its `__init__`, which imports more than the modules here need.
    spec = importlib.util.spec_from_loader("tfdistill", loader=None, is_package=True)
    spec.submodule_search_locations = [settings["package"]]
    sys.modules["tfdistill"] = importlib.util.module_from_spec(spec)
    result_fd = os.dup(1)
    os.dup2(2, 1)  # printed text goes to standard error, so that it does not mix with the result
    importlib.import_module(settings["module"]).main(result_fd)


def die_with_parent(parent):
    """Makes the kernel kill this process when the thread that started it ends (Linux only).

    Args:
        parent: Process id of the parent.
    """
    if sys.platform == "linux":
        import ctypes

        pr_set_pdeathsig = 1
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL, 0, 0, 0)
    if hasattr(os, "getppid") and os.name == "posix" and os.getppid() != parent:
        os._exit(1)  # the parent ended before the call above


def forbid_core_files():
    """Prevents a crash from writing a core file into the user's folder."""
    try:
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    except (ImportError, ValueError, OSError):
        return  # the system has no such limit


def end_with_input():
    """Ends this process when its standard input closes, that is, when its parent has ended. For systems without `die_with_parent`.

    Call it after the message has been read from standard input.
    """

    def watch():
        while os.read(0, 1):
            continue
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
