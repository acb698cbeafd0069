"""A local Feishu, an embedded Redis and a span collector, for `flybridge dev`, demo and tests.

Nothing of it runs in production, and nothing is imported here: take each from its own module.
"""
