"""Starts a process whose clocks can be shifted while it runs. The machine's clock stays as it is.

A program reads clocks through the vDSO, code that the kernel maps into each process. This module starts the program
stopped at its first instruction and replaces three functions of its vDSO. The new code asks the kernel, then adds an
offset that lies next to it. `ShiftedClock.shift` writes the offsets through /proc/PID/mem. This works for static
programs, which ignore LD_PRELOAD, and needs no time namespace, whose offsets cannot change.

CLOCK_REALTIME and CLOCK_BOOTTIME can be shifted, each by whole seconds. CLOCK_MONOTONIC is left alone: no machine
steps it. A CLOCK_BOOTTIME that is ahead is what a process sees after the machine was suspended. The kernel's own timers
are not shifted: a wait until a time of the shifted CLOCK_REALTIME ends too late, or at once if the clock is behind.

Needs Linux on x86-64, and the right to trace one's own children.
"""

import ctypes
import os
import platform
import signal
import struct
import subprocess

PTRACE_TRACEME, PTRACE_DETACH = 0, 17
LIBC = ctypes.CDLL(None)
LIBC.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]

# clock_gettime(edi: clock, rsi: time): the system call; then, if it succeeded, adds to the seconds `wall` for the
# clocks 0 and 5 (REALTIME, and its coarse form), and `boot` for the clock 7.
CLOCK_GETTIME = bytes.fromhex(
    "b8e4000000"  # mov eax, 228
    "0f05"  # syscall
    "85c0"  # test eax, eax
    "7521"  # jne end
    "83ff07"  # cmp edi, 7
    "7412"  # je boot
    "85ff"  # test edi, edi
    "7405"  # je wall
    "83ff05"  # cmp edi, 5
    "7513"  # jne end
    "488b150d000000"  # wall: mov rdx, [rip + 13]
    "eb07"  # jmp add
    "488b150c000000"  # boot: mov rdx, [rip + 12]
    "480116"  # add: add [rsi], rdx
    "c3"  # end: ret
)
# gettimeofday(rdi: time, rsi: zone)
GETTIMEOFDAY = bytes.fromhex(
    "b860000000"  # mov eax, 96
    "0f05"  # syscall
    "85c0"  # test eax, eax
    "750f"  # jne end
    "4885ff"  # test rdi, rdi
    "740a"  # je end
    "488b1504000000"  # mov rdx, [rip + 4]
    "480117"  # add [rdi], rdx
    "c3"  # end: ret
)
# time(rdi: seconds)
TIME = bytes.fromhex(
    "b8c9000000"  # mov eax, 201
    "0f05"  # syscall
    "48030509000000"  # add rax, [rip + 9]
    "4885ff"  # test rdi, rdi
    "7403"  # je end
    "488907"  # mov [rdi], rax
    "c3"  # end: ret
)
# Each code is followed by its offsets: `wall`, and for clock_gettime `boot`.
FUNCTIONS = {
    "__vdso_clock_gettime": (CLOCK_GETTIME, 2),
    "__vdso_gettimeofday": (GETTIMEOFDAY, 1),
    "__vdso_time": (TIME, 1),
}


def is_possible():
    """Returns whether clocks can be shifted on this machine."""
    return platform.system() == "Linux" and platform.machine() == "x86_64"


def vdso_functions(image):
    """Returns offset and size of each dynamic function of an ELF image."""
    sections_at, = struct.unpack_from("<Q", image, 40)
    entry_size, count = struct.unpack_from("<HH", image, 58)
    sections = [struct.unpack_from("<IIQQQQIIQQ", image, sections_at + n * entry_size) for n in range(count)]
    symbols = next(section for section in sections if section[1] == 11)  # SHT_DYNSYM
    names_at = sections[symbols[6]][4]
    out = {}
    for at in range(symbols[4], symbols[4] + symbols[5], 24):
        name, _, _, _, value, size = struct.unpack_from("<IBBHQQ", image, at)
        text = image[names_at + name : image.index(b"\0", names_at + name)].decode()
        out[text] = value, size
    return out


class ShiftedClock:
    """The clocks of one process."""

    def __init__(self, pid):
        self.pid = pid
        self.places = []
        with open(f"/proc/{pid}/maps") as maps:
            line = next(line for line in maps if line.rstrip().endswith("[vdso]"))
        begin, end = (int(part, 16) for part in line.split()[0].split("-"))
        with open(f"/proc/{pid}/mem", "r+b", buffering=0) as memory:
            memory.seek(begin)
            functions = vdso_functions(memory.read(end - begin))
            for name, (code, offsets) in FUNCTIONS.items():
                at, size = functions[name]
                if size < len(code) + 8 * offsets:
                    raise OSError(f"{name} of this kernel is too short to be replaced")
                memory.seek(begin + at)
                memory.write(code + bytes(8 * offsets))
                self.places.append((begin + at + len(code), offsets))

    def shift(self, wall_s, boot_s):
        """Sets how far the clocks are ahead of the machine's, in seconds."""
        with open(f"/proc/{self.pid}/mem", "r+b", buffering=0) as memory:
            for place, offsets in self.places:
                memory.seek(place)
                memory.write(struct.pack("<qq", wall_s, boot_s)[: 8 * offsets])


def start(command, prepare=None, **options):
    """Starts a program as `subprocess.Popen` does, and returns it with its clocks.

    `prepare` runs in the child. Must be called in the main thread.
    """
    def be_traced():
        if prepare:
            prepare()
        LIBC.ptrace(PTRACE_TRACEME, 0, None, None)

    child = subprocess.Popen(command, preexec_fn=be_traced, **options)
    _, status = os.waitpid(child.pid, 0)
    if not os.WIFSTOPPED(status) or os.WSTOPSIG(status) != signal.SIGTRAP:
        raise OSError(f"{command[0]} cannot be traced")
    try:
        return child, ShiftedClock(child.pid)
    finally:
        LIBC.ptrace(PTRACE_DETACH, child.pid, None, None)
