"""On which cores the measuring process runs."""

import os

from tfdistill.errors import ConfigurationError


def pin(cores):
    """Lets this process, and the threads that it will make, run on some cores only.

    Args:
        cores: Numbers of the cores; None changes nothing.

    Raises:
        ConfigurationError: if the system cannot pin, or there is no such core.
    """
    if cores is None:
        return
    if not hasattr(os, "sched_setaffinity"):
        raise ConfigurationError("This system does not let a process choose its cores.", "Linux", "leave cores out")
    usable = os.sched_getaffinity(0)
    if not set(cores) <= usable:
        raise ConfigurationError(f"cores={tuple(cores)} has cores that this process may not use.", f"of {sorted(usable)}")
    os.sched_setaffinity(0, cores)
