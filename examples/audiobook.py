"""Reads a chapter and writes an audiobook with chapters and subtitles; started again, it goes on where it was stopped.

python examples/audiobook.py chapter.md
"""

import sys
from pathlib import Path

import transformers_bark
from transformers_bark import BarkModel, BarkProcessor, Narrator
from transformers_bark.narration import read

model = BarkModel.from_pretrained(transformers_bark.BARK_NANO)
processor = BarkProcessor.from_pretrained(transformers_bark.BARK_NANO)
narrator = Narrator(model, processor)

text = "# The harbour\n\nThe boat is here. Do you see the captain?\n\n# The sea\n\nThe sea is calm, and the sun is up."
book = Path(sys.argv[1]) if len(sys.argv) > 1 else text
script = read(book, None if len(sys.argv) > 1 else "markdown", limits=narrator.limits)

narration = narrator(script, seed=1, work="audiobook.work", resume=True)
print(f"{len(narration)} pieces, about {narration.estimate:.0f} s")
report = narration.write("audiobook.m4b", subtitles="audiobook.srt")  # M4B needs the extra `audio`
for spoken in report.doubtful:
    print(spoken.piece.number, spoken.piece.text, *(doubt.reason for doubt in spoken.doubts))
