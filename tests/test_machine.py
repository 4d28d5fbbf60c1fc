"""What is read of the machine, from the files of several kernels."""

import pytest

from tfdistill.utils import machine

PI4 = "processor\t: 0\nCPU implementer\t: 0x41\nCPU part\t: 0xd08\n\nprocessor\t: 1\nCPU implementer\t: 0x41\nCPU part\t: 0xd08\n\nModel\t\t: Raspberry Pi 4 Model B Rev 1.4\n"
CPUINFO = {
    "a Raspberry Pi 4": (PI4, "Cortex-A72, Raspberry Pi 4 Model B Rev 1.4"),
    "a phone of two kinds of cores": (
        "CPU implementer : 0x41\nCPU part : 0xd05\nCPU implementer : 0x41\nCPU part : 0xd0b\n",
        "Cortex-A55, Cortex-A76",
    ),
    "another maker": ("CPU implementer : 0x51\nCPU part : 0xd08\nmodel name : Kryo\n", "Kryo"),
    "x86": ("model name\t: Some Xeon\nmodel name\t: Some Xeon\n", "Some Xeon"),
}


@pytest.mark.parametrize("name", CPUINFO)
def test_the_processor_has_a_name(name, tmp_path):
    text, expected = CPUINFO[name]
    (tmp_path / "cpuinfo").write_text(text)
    assert machine.cpu_model(tmp_path / "cpuinfo") == expected


def test_without_a_name_it_is_the_instruction_set(tmp_path):
    assert machine.cpu_model(tmp_path / "none")
    found = machine.describe(tmp_path / "none")
    assert set(found) == {"cpu_model", "machine", "cores", "usable_cores", "memory_bytes", "os", "python"}


def test_clock_and_temperature(tmp_path):
    assert (machine.clock_mhz(system=tmp_path), machine.temperature_c(tmp_path)) == (None, None)
    for core, kilohertz in ((0, "600000"), (1, "1500000"), (2, "nothing")):
        folder = tmp_path / f"devices/system/cpu/cpu{core}/cpufreq"
        folder.mkdir(parents=True)
        (folder / "scaling_cur_freq").write_text(kilohertz)
    for number, (kind, degrees) in enumerate((("battery", "80000"), ("cpu-thermal", "51234"), ("cpu-thermal", ""))):
        folder = tmp_path / f"class/thermal/thermal_zone{number}"
        folder.mkdir(parents=True)
        (folder / "type").write_text(kind)
        (folder / "temp").write_text(degrees)
    assert (machine.clock_mhz(system=tmp_path), machine.temperature_c(tmp_path)) == (1500.0, 51.234)
    (tmp_path / "class/thermal/thermal_zone1/temp").write_text("")
    assert machine.temperature_c(tmp_path) == 80.0
