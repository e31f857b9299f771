"""Speaks a dialogue of three voices and writes it as one file.

python examples/dialogue.py
"""

import transformers_bark
from transformers_bark import BarkModel, BarkProcessor, Narrator
from transformers_bark.narration import read

SCRIPT = """
Anna: Is the train to the airport here?
Ben: It is the next one. [pause:0.8s] You have ten minutes.
Narrator: The train is late, as it is every day.
Anna: Thank you!
"""

model = BarkModel.from_pretrained(transformers_bark.BARK_NANO)
processor = BarkProcessor.from_pretrained(transformers_bark.BARK_NANO)
narrator = Narrator(model, processor)

# the cast may name fewer voices than there are: who has none gets one of his own
voices = processor.available_voice_presets
cast = dict(zip(("Anna", "Ben"), voices, strict=False))
script = read(SCRIPT, "script", cast={**cast, "Narrator": voices[0], "Ben": voices[-1]}, limits=narrator.limits)
for spoken in narrator(script, seed=1):
    print(f"{spoken.start:5.1f} s  {spoken.piece.speaker}: {spoken.piece.text}")
narrator(script, seed=1).write("dialogue.wav")
