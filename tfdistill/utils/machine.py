"""What the machine is that this process runs on.

Standard library only, for Python 3.8 and later: `docs/make_kits.py` copies this module to the kits of boards.
"""

import os
import pathlib
import platform

# Cores of Arm by the number of the part that the kernel reports, where it reports no name.
_ARM_PARTS = dict(
    each.split(":")
    for each in [
        "0xb76:ARM1176",
        "0xc07:Cortex-A7",
        "0xc08:Cortex-A8",
        "0xc09:Cortex-A9",
        "0xc0f:Cortex-A15",
        "0xd03:Cortex-A53",
        "0xd04:Cortex-A35",
        "0xd05:Cortex-A55",
        "0xd07:Cortex-A57",
        "0xd08:Cortex-A72",
        "0xd09:Cortex-A73",
        "0xd0a:Cortex-A75",
        "0xd0b:Cortex-A76",
        "0xd0c:Neoverse-N1",
        "0xd0d:Cortex-A77",
        "0xd41:Cortex-A78",
        "0xd42:Cortex-A78AE",
        "0xd46:Cortex-A510",
        "0xd47:Cortex-A710",
        "0xd80:Cortex-A520",
    ]
)
_ARM = "0x41"
# Parts of the names of thermal zones that belong to the processor.
_PROCESSOR_ZONES = ("cpu", "soc", "x86_pkg_temp", "k10temp", "coretemp", "big", "little")


def describe(cpuinfo="/proc/cpuinfo"):
    """Returns a dict of the machine: `cpu_model`, `machine`, `cores`, `usable_cores`, `memory_bytes`, `os` and `python`.

    Args:
        cpuinfo: The kernel's file about the processor.
    """
    return {
        "cpu_model": cpu_model(cpuinfo),
        "machine": platform.machine(),
        "cores": os.cpu_count() or 1,
        "usable_cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        "memory_bytes": memory_bytes(),
        "os": platform.platform(terse=False),
        "python": platform.python_version(),
    }


def cpu_model(cpuinfo="/proc/cpuinfo"):
    """Returns the name of the processor as the system reports it; for boards also that of the board."""
    path, names, maker = pathlib.Path(cpuinfo), [], None
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines() if path.exists() else []
    for line in lines:
        key, _, value = (part.strip() for part in line.partition(":"))
        maker = value if key == "CPU implementer" else maker
        if key == "CPU part" and maker == _ARM:
            value = _ARM_PARTS.get(value)
        # "Model" with a capital is the board on ARM kernels; "model name" is the processor.
        elif key not in ("model name", "Model"):
            continue
        if value and value not in names:
            names.append(value)
    return ", ".join(names) or platform.processor() or platform.machine()


def clock_mhz(cores=None, system="/sys"):
    """Returns the fastest clock of some cores at this moment, in MHz; None where the system does not show it, as in most virtual machines.

    Args:
        cores: Numbers of the cores; None for all.
        system: The folder of the system's files.
    """
    paths = pathlib.Path(system).glob("devices/system/cpu/cpu[0-9]*/cpufreq/scaling_cur_freq")
    found = [_number(path) for path in paths if cores is None or int(path.parts[-3][3:]) in cores]
    return max((kilohertz / 1000 for kilohertz in found if kilohertz), default=None)


def temperature_c(system="/sys"):
    """Returns the highest temperature of the processor in degrees Celsius; that of any zone if none is named after it; None where none is shown.

    Args:
        system: The folder of the system's files.
    """
    zones = []
    for zone in pathlib.Path(system).glob("class/thermal/thermal_zone*"):
        value = _number(zone / "temp")
        if value is not None:
            zones.append((_text(zone / "type").lower(), value / 1000))
    of_processor = [value for name, value in zones if any(part in name for part in _PROCESSOR_ZONES)]
    return max(of_processor or [value for _, value in zones], default=None)


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


def memory_bytes():
    """Returns the physical memory; None if the system does not report it."""
    if "SC_PHYS_PAGES" not in getattr(os, "sysconf_names", {}):
        return None
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
