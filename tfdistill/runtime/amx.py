"""AMX, the matrix unit of recent Intel server processors, and how XNNPACK is kept from it.

XNNPACK takes AMX for int8 convolutions and dense layers wherever the kernel grants it. With many channels that is faster than the vector instructions that it
takes otherwise, with few several times slower (docs/amx.md). No phone or board has it: times of int8 files on such a machine say little about other devices.
"""

import ctypes
import pathlib
import platform
import struct

from tfdistill.errors import RuntimeUnavailableError

# Of Linux on x86-64: number of the system call by which a process asks for AMX, and what it asks there.
_ARCH_PRCTL, _ARCH_REQ_XCOMP_PERM = 158, 0x1023
_PR_SET_SECCOMP, _PR_SET_NO_NEW_PRIVS, _SECCOMP_MODE_FILTER = 22, 38, 2
# Instructions of the kernel's packet filter: load a word, jump if equal, return.
_LOAD, _EQUAL, _RETURN = 0x20, 0x15, 0x06
_NUMBER_AT, _FIRST_ARGUMENT_AT = 0, 16
_NOT_PERMITTED, _ALLOWED = 0x0005_0001, 0x7FFF_0000
# (code, instructions to skip if true, if false, value)
_FILTER = (
    (_LOAD, 0, 0, _NUMBER_AT),
    (_EQUAL, 0, 3, _ARCH_PRCTL),
    (_LOAD, 0, 0, _FIRST_ARGUMENT_AT),
    (_EQUAL, 0, 1, _ARCH_REQ_XCOMP_PERM),
    (_RETURN, 0, 0, _NOT_PERMITTED),
    (_RETURN, 0, 0, _ALLOWED),
)


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_void_p))


def has_amx(cpuinfo="/proc/cpuinfo"):
    """Whether the processor has AMX for int8, and the system tells so.

    Args:
        cpuinfo: The kernel's file about the processor.
    """
    path = pathlib.Path(cpuinfo)
    return platform.machine() == "x86_64" and path.is_file() and "amx_int8" in path.read_text(encoding="utf-8", errors="replace")


def refuse_amx():
    """Keeps this process, and those that it starts, from AMX from now on: the kernel refuses it. Does nothing where there is none.

    It has to be called before the first file is opened, as XNNPACK asks for AMX then, once.

    Raises:
        RuntimeUnavailableError: if the kernel does not allow it.
    """
    if not has_amx():
        return
    libc = ctypes.CDLL(None, use_errno=True)
    instructions = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *each) for each in _FILTER))
    program = _Program(len(_FILTER), ctypes.addressof(instructions))
    for call in ((_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), (_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.byref(program), 0, 0)):
        if libc.prctl(*call):
            raise RuntimeUnavailableError(
                f"XNNPACK cannot be kept from AMX: the kernel refuses the filter of system calls (error {ctypes.get_errno()}).",
                "Linux with seccomp filters",
                "leave out amx=False",
            )
