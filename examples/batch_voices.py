"""Several texts in one batch, with a voice for some of them: rows do not depend on each other."""

from transformers_bark import BARK_NANO, BarkModel, BarkProcessor

model = BarkModel.from_pretrained(BARK_NANO)
processor = BarkProcessor.from_pretrained(BARK_NANO)

texts = ["Good morning.", "The train leaves at eight.", "See you tomorrow!"]
voice = processor.available_voice_presets[0]
inputs = processor(texts, voice_preset=[voice, None, voice])
output = model.generate(**inputs, seed=[1, 2, 3], return_dict_in_generate=True)
for number, (audio, length) in enumerate(zip(output.audio, output.audio_lengths, strict=True)):
    processor.save_audio(audio[:length], f"{number}.wav", model.generation_config.sample_rate)
