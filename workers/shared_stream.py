"""The bound on what is claimed from the stream that types without one of their own share."""

from __future__ import annotations

from collections.abc import Mapping

from bridge.streams import OTHER


def shared_cap(
    caps: Mapping[str, int], tasks: Mapping[str, str], rooms: Mapping[str, int | None]
) -> dict[str, int]:
    """The caps, and one for the stream that types without one of their own share.

    Args:
        caps: stream -> how many more of its entries to claim.
        tasks: stream -> its task, for all streams that are read.
        rooms: task with events that wait -> how many more may; those of tasks without a stream came
            from the shared one, which nobody can read past them.
    """
    own = set(tasks.values())
    foreign = [room for task, room in rooms.items() if task not in own and room is not None]
    shared = [stream for stream in tasks if stream.endswith(f":{OTHER}")]
    return {**caps, **{stream: min([*foreign, caps.get(stream, foreign[0])])
                       for stream in shared if foreign}}  # fmt: skip
