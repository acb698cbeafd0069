"""Refuses to run with somebody else's `bridge` or `handlers` in the place of ours.

`celery` puts the working directory first on `sys.path`, so these names are easily taken. This
module imports neither package: the refusal comes before whatever the wrong one lacks.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

HOME = Path(__file__).resolve().parent.parent


def refuse_shadows() -> None:
    """Look where our packages would be imported from.

    Raises:
        ImportError: from elsewhere; the sentence names both places.
    """
    for name in ("bridge", "handlers"):
        spec = find_spec(name)
        origin = Path(spec.origin).resolve() if spec and spec.origin else None
        if origin is None or origin.parent.parent != HOME:
            raise ImportError(
                f"the package {name!r} is imported from {origin}, not from {HOME / name};"
                f" rename your own {name!r}, or move it off sys.path"
            )
