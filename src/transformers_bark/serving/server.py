"""The process: what is loaded, and how it ends."""

from __future__ import annotations

import contextlib
import ctypes
import os
import socket
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import uvicorn

from .service import Service

FOLDER = Path("transformers_bark", "voices")
"""Where voices are stored below `HF_HOME`, unless another folder is named."""


_M_ARENA_MAX = -8  # of malloc.h

FIRST_REQUEST = 30.0
"""Seconds until the first request of a connection has begun."""


class Server(uvicorn.Server):
    """uvicorn's server, which at a signal finishes what has a place, refuses what comes, and ends with 0.

    Until then it goes on listening, so that callers get an answer (503) and no broken connection. A second signal ends it at once.
    """

    def __init__(self, config: uvicorn.Config, service: Service) -> None:
        super().__init__(config)
        self._service = service
        self._silent: dict[Any, float] = {}

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """A signal. It is not raised again at the end, as uvicorn does: that would be its exit status."""
        if self._service.is_closing:
            self.should_exit = self.force_exit = True
        self._service.is_closing = True

    async def on_tick(self, counter: int) -> bool:
        if self._service.is_closing and not self._service.taken:
            self.should_exit = True
        if counter % 10 == 0:
            self._close_silent()
        return await super().on_tick(counter)

    def _close_silent(self) -> None:
        """Closes connections on which no request has come for a while: uvicorn waits for the first one for ever."""
        silent = [one for one in self.server_state.connections if getattr(one, "cycle", one) is None]
        now = time.monotonic()
        self._silent = {one: self._silent.get(one, now) for one in silent}
        for one, since in self._silent.items():
            if now - since > FIRST_REQUEST and one.transport is not None:
                one.transport.close()


def _share_arenas() -> None:
    """Lets all threads take memory from two places (glibc): each of a request's threads would else get one, and keep what it frees."""
    with contextlib.suppress(OSError, AttributeError, TypeError):
        ctypes.CDLL(None).mallopt(_M_ARENA_MAX, 2)


def run(app: Any, service: Service, host: str, port: int, tell: Callable[[str, int], None]) -> None:
    """Serves until a signal comes.

    Args:
        tell: told the address, once it is listened on.

    Raises:
        OSError: the address cannot be used.
    """
    config = uvicorn.Config(
        app,
        host=host,
        port=port,
        log_config=None,  # a line a request is the gate's
        access_log=False,
        server_header=False,
        proxy_headers=False,  # nothing here depends on a caller's address
        ws_max_size=1 << 20,
        h11_max_incomplete_event_size=64 * 1024,
        timeout_graceful_shutdown=10,  # what has a place has been served by then
        timeout_keep_alive=30,
    )
    _share_arenas()
    server = Server(config, service)
    sock = listen(host, port)
    tell(*sock.getsockname()[:2])
    try:
        server.run(sockets=[sock])
    finally:
        sock.close()


def listen(host: str, port: int) -> socket.socket:
    """A socket that takes connections at an address: who comes before the server runs waits, and is not refused.

    Raises:
        OSError: the address cannot be used; the error names it.
    """
    family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    sock = socket.socket(family, kind)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(address)
        sock.listen()
    except OSError as error:
        sock.close()
        raise OSError(error.errno, error.strerror, f"{host}:{port}") from error
    return sock


def url_of(host: str, port: int) -> str:
    """As in http://127.0.0.1:8000 or http://[::1]:8000."""
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


def load(source: str, model: Any, voices_folder: Path | None, **settings: Any) -> Service:
    """A service of a loaded model.

    Args:
        source: folder or Hub name of the checkpoint.
        voices_folder: of the stored voices.
        settings: `most_voices`, and those of `Service`.
    """
    from ..processing_bark import BarkProcessor
    from .voices import Voices

    processor = BarkProcessor.from_pretrained(source)
    voices = Voices(processor, model.generation_config, voices_folder, settings.pop("most_voices", 100))
    return Service(model, processor, model_name(source), voices, **settings)


def model_name(source: str) -> str:
    """What callers call a checkpoint: no path of this machine."""
    from .. import BARK_NANO

    if source == BARK_NANO:
        return "bark-nano"
    return Path(source).name if os.path.isdir(source) else source


def default_folder() -> Path:
    from huggingface_hub.constants import HF_HOME

    return Path(HF_HOME) / FOLDER
