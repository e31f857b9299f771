"""The process: the page of a loaded model, served to this machine unless it is said otherwise."""

from __future__ import annotations

import os
from typing import Any

import gradio as gr

from ..serving.server import model_name
from .making import Studio
from .page import create_page
from .takes import StudioLimits
from .theme import css, head, theme

MOST_SESSIONS = 200
"""Visitors whose takes are kept."""


def load(source: str, model: Any, limits: StudioLimits | None = None) -> gr.Blocks:
    """The page of a loaded model.

    Args:
        source: folder or Hub name of the checkpoint, whose processor is loaded.
        model: its `BarkModel`.
    """
    from ..processing_bark import BarkProcessor

    return create_page(Studio(model, BarkProcessor.from_pretrained(source), model_name(source), limits))


def look() -> dict[str, Any]:
    """What `launch` and `gradio.mount_gradio_app` are given for the page to look as it should."""
    return {"theme": theme(), "css": css(), "head": head(), "footer_links": []}


def launch(page: gr.Blocks, host: str | None = "127.0.0.1", port: int | None = 7860, **settings: Any) -> Any:
    """Serves the page, and nothing else: no link to it from outside, no figures to anybody, no file of this machine.

    Args:
        host: the address to listen on; `None` leaves it to the environment, as on a Space.
        settings: others of Gradio's `launch`.

    Returns:
        What Gradio's `launch` gives.
    """
    os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
    fixed = {
        "share": False,
        "ssr_mode": False,
        "enable_monitoring": False,
        "run_history": False,
        "pwa": False,
        "mcp_server": False,
        "max_file_size": StudioLimits().upload,
        "state_session_capacity": MOST_SESSIONS,
        "show_error": True,
        "quiet": True,
    }
    return page.launch(server_name=host, server_port=port, **{**fixed, **look(), **settings})
