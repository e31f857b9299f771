"""Says a sentence with the embedded checkpoint and keeps the voice that said it.

python examples/speak.py "Hello, my dog is cooler than you!"
"""

import sys

from transformers_bark import BARK_NANO, BarkModel, BarkProcessor

model = BarkModel.from_pretrained(BARK_NANO)
processor = BarkProcessor.from_pretrained(BARK_NANO)

text = sys.argv[1] if len(sys.argv) > 1 else "Hello, my dog is cooler than you!"
output = model.generate(**processor(text), seed=1, return_dict_in_generate=True)
processor.save_audio(output.audio[0], "speech.wav", model.generation_config.sample_rate)
output.voice_preset(0).save("voice.npz")
