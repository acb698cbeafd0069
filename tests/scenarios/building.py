"""A program of a user's own: a service, run until it is told to stop.

It takes app id and secret from a file beside its logs, all else from the environment.
"""

from __future__ import annotations

from acting import act, react

from flybridge.bridge.builder import Builder

if __name__ == "__main__":
    builder = Builder().configure_from("service.yaml").configure(group="workers")
    builder.add_handler(act).add_handler(react).build().run()
