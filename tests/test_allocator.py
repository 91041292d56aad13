"""Freed memory that a program keeps."""

from __future__ import annotations

import subprocess
import sys

import pytest

from espnet_smoe.allocator import VARIABLES, keep_freed_memory

BIG = 200 * 2**20
PROGRAM = f"""
import ctypes, sys
from espnet_smoe.allocator import keep_freed_memory
if sys.argv[1] == "keep":
    assert keep_freed_memory()
libc = ctypes.CDLL("libc.so.6")
libc.malloc.restype = ctypes.c_void_p
first = libc.malloc({BIG})
ctypes.memset(first, 7, {BIG})
libc.free(ctypes.c_void_p(first))
second = libc.malloc({BIG})
print(ctypes.string_at(second + {BIG // 2}, 1)[0])
"""

PIECES = """
import ctypes
from pathlib import Path
from espnet_smoe.allocator import return_freed_memory
def resident():
    return 4096 * int(Path("/proc/self/statm").read_text().split()[1])
libc = ctypes.CDLL("libc.so.6")
libc.malloc.restype = ctypes.c_void_p
libc.free.argtypes = [ctypes.c_void_p]
pieces = [libc.malloc(2**16) for _ in range(3000)]
for piece in pieces:
    ctypes.memset(piece, 7, 2**16)
for piece in pieces[:-1]:  # the last one, at the heap's end, keeps the others there
    libc.free(piece)
before = resident()
assert return_freed_memory()
print(before - resident())
"""


def found_in_a_second_block(how: str) -> int:
    """A byte of a large block, allocated when one full of sevens has been freed."""
    command = [sys.executable, "-c", PROGRAM, how]
    run = subprocess.run(command, capture_output=True, text=True, check=True, env={"PATH": ""})
    return int(run.stdout)


def test_the_second_block_takes_the_place_of_the_first() -> None:
    assert found_in_a_second_block("keep") == 7
    assert found_in_a_second_block("leave") == 0  # a new page of the system's


@pytest.mark.parametrize("name", VARIABLES)
def test_the_users_own_settings_stand(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "x")
    assert not keep_freed_memory()


def test_what_was_freed_in_pieces_goes_back() -> None:
    run = subprocess.run(
        [sys.executable, "-c", PIECES], capture_output=True, text=True, check=True, env={"PATH": ""}
    )
    assert int(run.stdout) > 2999 * 2**16 * 0.9
