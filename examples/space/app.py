"""The studio as a Hugging Face Space. `BARK_MODEL` takes another checkpoint than the embedded one, such as suno/bark-small."""

import os

import torch

from transformers_bark import BARK_NANO, BarkModel
from transformers_bark.studio import server
from transformers_bark.studio.takes import StudioLimits

source = os.environ.get("BARK_MODEL", BARK_NANO)
device = "cuda" if torch.cuda.is_available() else "cpu"
model = BarkModel.from_pretrained(source).to(device).eval().set_engine("auto")

page = server.load(source, model, StudioLimits(characters=1000, seconds=300))  # visitors share one model

if __name__ == "__main__":
    server.launch(page, host="0.0.0.0")
