"""The process: the page of a loaded model, served to this machine unless it is said otherwise."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from typing import Any

import gradio as gr

from ..serving.server import listen, model_name, url_of
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


def run(page: gr.Blocks, host: str, port: int, open_browser: bool, tell: Callable[[str], None]) -> None:
    """Serves the page until a signal comes.

    Args:
        port: 0 takes a free one.
        tell: told the address, once it is listened on.

    Raises:
        OSError: the address cannot be used.
    """
    with listen(host, port) as sock:  # Gradio would try other ports, or say nothing of what is wrong with an address
        port = int(sock.getsockname()[1])
    launch(page, host, port, prevent_thread_lock=True, inbrowser=open_browser)
    tell(url_of(host, port))
    ended = threading.Event()
    for name in (signal.SIGINT, signal.SIGTERM):
        signal.signal(name, lambda *_: ended.set())
    ended.wait()
    page.close(verbose=False)
