"""The native attacker: what payloads in the image with ctypes begin with, and machine code that is made here.

No compiler is needed: the two files are small enough to be put together by hand. x86_64 only, as their system call
numbers are.
"""

from __future__ import annotations

import struct

# ``call(number, ...)`` is any system call: its result, or the name of its error. ``tell`` says whether it got past
# the filters: EPERM and ENOSYS are what they answer, and any other error is the kernel's own.
SYSCALL = """
import ctypes, errno
libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long
def call(number, *arguments):
    given = [ctypes.c_long(a) if isinstance(a, int) else a for a in arguments]  # others by their address
    got = libc.syscall(ctypes.c_long(number), *given)
    return errno.errorcode.get(ctypes.get_errno(), 'unknown') if got == -1 else got
def tell(got):
    print(got, '' if got in ('EPERM', 'ENOSYS') else {R})
"""

_EHDR = struct.Struct("<16sHHIQQQIHHHHHH")
_PHDR = struct.Struct("<IIQQQQQQ")
_SYM = struct.Struct("<IBBHQQ")
_IDENT = b"\x7fELF\x02\x01\x01" + bytes(9)
_X86_64 = 62
_EXECUTABLE, _SHARED = 2, 3  # e_type
_LOAD, _DYNAMIC, _STACK = 1, 2, 0x6474E551  # p_type
_READ_WRITE, _READ_EXECUTE = 6, 5  # p_flags
_PAGE = 0x1000
_BASE = 0x400000  # of a program that is not moved


def _header(kind: int, entry: int, segments: int) -> bytes:
    return _EHDR.pack(_IDENT, kind, _X86_64, 1, entry, _EHDR.size, 0, 0, _EHDR.size, _PHDR.size, segments, 64, 0, 0)


def program(text: bytes) -> bytes:
    """A static ELF program that writes ``text`` to descriptor 1 and ends."""
    start, code_size = _EHDR.size + _PHDR.size, 36
    code = b"".join((
        b"\xbf\x01\x00\x00\x00",  # mov edi, 1
        b"\x48\xbe" + struct.pack("<Q", _BASE + start + code_size),  # mov rsi, text
        b"\xba" + struct.pack("<I", len(text)),  # mov edx, length
        b"\xb8\x01\x00\x00\x00\x0f\x05",  # mov eax, 1 (write); syscall
        b"\x31\xff\xb8\x3c\x00\x00\x00\x0f\x05",  # xor edi, edi; mov eax, 60 (exit); syscall
    ))  # fmt: skip
    assert len(code) == code_size
    size = start + len(code) + len(text)
    segment = _PHDR.pack(_LOAD, _READ_EXECUTE, 0, _BASE, _BASE, size, size, _PAGE)
    return _header(_EXECUTABLE, _BASE + start, 1) + segment + code + text


def library(name: str, code: bytes) -> bytes:
    """A shared library with one function of that name, which is all that the dynamic linker asks of one."""
    strings = b"\0" + name.encode() + b"\0"
    code_at = _EHDR.size + 4 * _PHDR.size
    symbols_at = -(-(code_at + len(code)) // 8) * 8
    symbols = bytes(_SYM.size) + _SYM.pack(1, 0x12, 0, 1, code_at, len(code))  # a global function, in some section
    hash_at = symbols_at + len(symbols)
    hashes = struct.pack("<IIIII", 1, 2, 1, 0, 0)  # one bucket of two symbols, which begins at symbol 1
    strings_at = hash_at + len(hashes)
    end = strings_at + len(strings)
    dynamic_at = -(-end // _PAGE) * _PAGE
    tags = ((4, hash_at), (5, strings_at), (6, symbols_at), (10, len(strings)), (11, _SYM.size), (0, 0))
    dynamic = b"".join(struct.pack("<QQ", tag, value) for tag, value in tags)
    size = len(dynamic)
    segments = _PHDR.pack(_LOAD, _READ_EXECUTE, 0, 0, 0, end, end, _PAGE)
    segments += _PHDR.pack(_LOAD, _READ_WRITE, dynamic_at, dynamic_at, dynamic_at, size, size, _PAGE)
    segments += _PHDR.pack(_DYNAMIC, _READ_WRITE, dynamic_at, dynamic_at, dynamic_at, size, size, 8)
    segments += _PHDR.pack(_STACK, _READ_WRITE, 0, 0, 0, 0, 0, 16)  # without it, the stack would have to be executable
    front = (_header(_SHARED, 0, 4) + segments + code).ljust(symbols_at, b"\0") + symbols + hashes + strings
    return front.ljust(dynamic_at, b"\0") + dynamic
