"""Bodies of the domain `url`: links whose preview the app draws."""

from __future__ import annotations

from flybridge.handlers.payloads.base import Payload
from flybridge.handlers.payloads.card import Context, Operator


class UrlPreview(Payload):
    """Somebody sees a link that wants a preview."""

    operator: Operator = Operator()
    host: str = ""
    """`im_message` or `im_top_notice`."""
    context: Context = Context()


MODELS: dict[str, type[Payload]] = {"url.preview.get": UrlPreview}
