"""XNNPACK is kept from AMX."""

import errno
import subprocess
import sys

import pytest

from tfdistill.benchmarking import Cpu
from tfdistill.errors import ConfigurationError
from tfdistill.runtime import amx

# What a process asks the kernel for AMX with; what else it asks the same call, and another call, go through. On a processor without AMX the kernel would give another error.
ASKING = """
import ctypes, sys, threading
from tfdistill.runtime import amx
amx.has_amx = lambda: True
amx.refuse_amx()
amx.refuse_amx()
libc = ctypes.CDLL(None, use_errno=True)
def asked(*call):
    return 0 if libc.syscall(*map(ctypes.c_long, call)) >= 0 else ctypes.get_errno()
held = ctypes.c_ulong()
found = []
thread = threading.Thread(target=lambda: found.append(asked(158, 0x1023, 18)))
thread.start()
thread.join()
print(asked(158, 0x1023, 18), *found, asked(158, 0x1003, ctypes.addressof(held)), asked(39))
"""


@pytest.mark.skipif(
    sys.platform != "linux" or amx.platform.machine() != "x86_64", reason="AMX is a part of x86-64, and the filter one of Linux"
)
def test_the_kernel_refuses_amx_to_the_process_and_its_threads():
    done = subprocess.run([sys.executable, "-c", ASKING], capture_output=True, text=True, check=True)
    assert done.stdout.split() == [str(errno.EPERM), str(errno.EPERM), "0", "0"]


# What the kernel says of a processor -> whether it has AMX for int8.
PROCESSORS = {
    "flags : fpu avx512_vnni amx_bf16 amx_tile amx_int8": True,
    "flags : fpu avx512_vnni amx_bf16 amx_tile": False,
    "flags : fpu avx2": False,
    "": False,
}


@pytest.mark.parametrize("text", PROCESSORS)
def test_a_processor_tells_whether_it_has_amx(tmp_path, text, monkeypatch):
    monkeypatch.setattr(amx.platform, "machine", lambda: "x86_64")
    (tmp_path / "cpuinfo").write_text(text)
    assert amx.has_amx(tmp_path / "cpuinfo") is PROCESSORS[text]
    assert not amx.has_amx(tmp_path / "none")


def test_other_processors_have_none(tmp_path, monkeypatch):
    monkeypatch.setattr(amx.platform, "machine", lambda: "aarch64")
    (tmp_path / "cpuinfo").write_text("amx_int8")
    assert not amx.has_amx(tmp_path / "cpuinfo")


def test_a_target_says_that_it_has_no_amx():
    assert Cpu(amx=False).describe() == "CPU, 1 thread, XNNPACK without AMX"
    with pytest.raises(ConfigurationError, match="amx"):
        Cpu(amx=1)
