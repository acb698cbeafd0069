"""The documentation's programs and rights are tried on the stage of the examples."""

from tests.examples.conftest import stage

__all__ = ["stage"]
