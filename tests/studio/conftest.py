"""A studio with a tiny model, as functions and as a served page."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from gradio_client import Client

from transformers_bark import BarkModel, BarkProcessor
from transformers_bark.studio.handlers import Handlers
from transformers_bark.studio.making import Studio
from transformers_bark.studio.page import create_page
from transformers_bark.studio.server import launch
from transformers_bark.studio.takes import Session, StudioLimits


def tiny_studio(checkpoint: Path) -> Studio:
    """A studio of the tiny model, which says little: "hello" fits into a generation, and two of them are a long text."""
    model, processor = BarkModel.from_pretrained(checkpoint).eval(), BarkProcessor.from_pretrained(checkpoint)
    model.generation_config.semantic_config.max_new_tokens = 24
    return Studio(model, processor, "tiny", StudioLimits(characters=200))


@pytest.fixture(scope="session")
def studio(checkpoint: Path) -> Studio:
    """A studio as functions."""
    return tiny_studio(checkpoint)


@pytest.fixture
def handlers(studio: Studio) -> Handlers:
    return Handlers(studio)


@pytest.fixture
def session(studio: Studio) -> Iterator[Session]:
    """What a new visitor has."""
    one = studio.first_session.__deepcopy__({})
    yield one
    one.close()


@dataclass
class Served:
    """A page that answers."""

    url: str
    studio: Studio
    page: Any

    def client(self) -> Client:
        """A new visitor."""
        return Client(self.url, verbose=False, analytics_enabled=False)


@pytest.fixture(scope="module")
def served(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """The page of the tiny model on a port of this machine, with a cache of its own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRADIO_TEMP_DIR", str(tmp_path_factory.mktemp("gradio")))
        studio = tiny_studio(checkpoint)
        page = create_page(studio)
        _, url, _ = launch(page, port=None, prevent_thread_lock=True)
        try:
            yield Served(url, studio, page)
        finally:
            page.close(verbose=False)
