"""What the system shows of the processor while it runs: clock and temperature; and on which cores it runs."""

import os
import pathlib

from tfdistill.errors import ConfigurationError

SYSTEM = pathlib.Path("/sys")
# Types of thermal zones that belong to the processor: Intel's, AMD's and the boards' names.
_PROCESSOR = ("x86_pkg_temp", "cpu", "soc", "k10temp", "coretemp", "tcpu", "big", "little")


def clock_mhz(cores=None, system=SYSTEM):
    """Returns the fastest present clock of some cores in MHz; None where the system does not show it, as in most virtual machines.

    Args:
        cores: Numbers of the cores; None for all.
        system: The folder of the system's files.
    """
    paths = system.glob("devices/system/cpu/cpu[0-9]*/cpufreq/scaling_cur_freq")
    found = [_number(path) for path in paths if cores is None or int(path.parts[-3][3:]) in cores]
    return max((kilohertz / 1000 for kilohertz in found if kilohertz), default=None)


def temperature_c(system=SYSTEM):
    """Returns the highest temperature of the processor in degrees Celsius; that of any zone if none is named after it; None where none is shown."""
    zones = []
    for zone in sorted(system.glob("class/thermal/thermal_zone*")):
        value = _number(zone / "temp")
        if value is not None:
            zones.append((_text(zone / "type").lower(), value / 1000))
    of_processor = [value for name, value in zones if any(part in name for part in _PROCESSOR)]
    return max(of_processor or [value for _, value in zones], default=None)


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


def _number(path):
    try:
        return int(_text(path))
    except ValueError:
        return None


def _text(path):
    try:
        return path.read_text(encoding="ascii", errors="replace").strip()
    except OSError:  # some zones are listed and cannot be read
        return ""
