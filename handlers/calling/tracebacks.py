"""Finds the frames of a traceback that are the user's: neither Flybridge's nor Python's.

A traceback begins with the frames that call the handler, and often ends in a library. The reader
looks for those in between.
"""

from __future__ import annotations

import sysconfig
import traceback
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from types import FrameType, TracebackType

_PACKAGES = ("bridge", "workers", "handlers")
_OUR_EXAMPLES = "builtin"
_COMPILES = ("<frozen importlib._bootstrap_external>", "source_to_code")
"""File and name of the function in importlib that compiles a module."""


def users_frames(error: BaseException) -> TracebackType | None:
    """The error's traceback from the user's first frame on; all of it if there is none."""
    for step in _steps(error):
        if not _is_ours(step.tb_frame) and not _is_pythons(step.tb_frame):
            return step
    return error.__traceback__


def users_line(error: BaseException) -> str:
    """`file:line` of the last frame of the user's code; empty if there is none.

    A frame of an installed package counts only if no other does.
    """
    if isinstance(error, SyntaxError) and error.filename:
        return f"{error.filename}:{error.lineno}"
    if place := _nul_byte(error):
        return place
    outside = [step for step in _steps(error) if not _is_ours(step.tb_frame)]
    outside = [step for step in outside if not _is_pythons(step.tb_frame)]
    nearest = [step for step in outside if not _is_installed(step.tb_frame)] or outside
    return f"{_file(nearest[-1].tb_frame)}:{nearest[-1].tb_lineno}" if nearest else ""


def raised_in(error: BaseException, module: str) -> bool:
    """Whether a function of this module raised the error."""
    frames = [step.tb_frame for step in _steps(error)]
    return bool(frames) and frames[-1].f_globals.get("__name__") == module


def rendered(error: BaseException) -> str:
    """The traceback from the user's first frame on, as text."""
    return "".join(traceback.format_exception(type(error), error, users_frames(error)))


def _nul_byte(error: BaseException) -> str:
    """`file:line` of the NUL byte because of which Python refused to compile a module; empty if
    that is not the cause. Python's message names no place."""
    for step in _steps(error):
        code, known = step.tb_frame.f_code, step.tb_frame.f_locals
        if (code.co_filename, code.co_name) == _COMPILES and b"\0" in known["data"]:
            line = known["data"].partition(b"\0")[0].count(b"\n") + 1
            return f"{known['path']}:{line}"
    return ""


def _steps(error: BaseException) -> Iterator[TracebackType]:
    step = error.__traceback__
    while step is not None:
        yield step
        step = step.tb_next


def _file(frame: FrameType) -> str:
    return frame.f_code.co_filename


def _is_ours(frame: FrameType) -> bool:
    return _lies_in(_file(frame), _homes()) and _OUR_EXAMPLES not in Path(_file(frame)).parts


def _is_pythons(frame: FrameType) -> bool:
    file = _file(frame)
    return file.startswith("<frozen ") or (_lies_in(file, _pythons()) and not _is_installed(frame))


def _is_installed(frame: FrameType) -> bool:
    return _lies_in(_file(frame), _installed())


def _lies_in(file: str, folders: tuple[str, ...]) -> bool:
    return file.startswith(folders)


@cache
def _homes() -> tuple[str, ...]:
    root = Path(__file__).parents[2]
    return tuple(f"{root / name}/" for name in _PACKAGES)


@cache
def _pythons() -> tuple[str, ...]:
    paths = sysconfig.get_paths()
    return tuple(f"{paths[name]}/" for name in ("stdlib", "platstdlib"))


@cache
def _installed() -> tuple[str, ...]:
    paths = sysconfig.get_paths()
    return tuple(f"{paths[name]}/" for name in ("purelib", "platlib"))
