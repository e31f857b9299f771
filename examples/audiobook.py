"""Reads a book and writes it as one file with chapters and subtitles, and as a file a chapter.

Started again, it goes on where it was stopped.

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
source, kind = (Path(sys.argv[1]), None) if len(sys.argv) > 1 else (text, "markdown")
script = read(source, kind, limits=narrator.limits)

narration = narrator(script, seed=1, work="audiobook.work", resume=True)
print(f"{len(narration)} pieces, about {narration.estimate:.0f} s")
report = narration.write("audiobook.m4b", subtitles="audiobook.srt")  # M4B needs the extra `audio`
narration.write("audiobook.wav", split="chapter")  # from the work folder
for spoken in report.doubtful:
    print(spoken.piece.number, spoken.piece.text, *(doubt.reason for doubt in spoken.doubts))
