"""Trains the coarse stage of the embedded checkpoint further on recordings with texts, and saves a folder that loads.

    python examples/train.py [RECORDINGS]

RECORDINGS holds `metadata.csv` (columns `file_name` and `text`) and the files it names; without it the checkpoint itself
speaks the recordings. On several GPUs: `accelerate launch examples/train.py RECORDINGS`.
"""

import sys
from pathlib import Path

from transformers_bark import BARK_NANO, BarkModel, BarkProcessor
from transformers_bark.training import (
    encode_speech,
    evaluate_stage,
    load_recordings,
    load_semantic_tokenizer,
    train_stage,
)

model = BarkModel.from_pretrained(BARK_NANO)
processor = BarkProcessor.from_pretrained(BARK_NANO)
semantic_tokenizer = load_semantic_tokenizer(BARK_NANO)

if len(sys.argv) > 1:
    folder = Path(sys.argv[1])
else:
    folder = Path("recordings")
    folder.mkdir(exist_ok=True)
    lines = ["file_name,text"]
    for number, text in enumerate(["Good morning.", "The train leaves at eight.", "See you tomorrow!"]):
        audio = model.generate(**processor(text), seed=number)[0]
        processor.save_audio(audio, folder / f"{number}.wav")
        lines.append(f"{number}.wav,{text}")
    (folder / "metadata.csv").write_text("\n".join(lines) + "\n")

dataset = encode_speech(load_recordings(folder), model, semantic_tokenizer)
print("loss before", evaluate_stage("coarse", model, dataset))
settings = {"max_steps": 20, "per_device_train_batch_size": 4, "learning_rate": 1e-4, "warmup_steps": 5}
train_stage("coarse", model, dataset, "runs/coarse", settings)
print("loss after", evaluate_stage("coarse", model, dataset))

model.save_pretrained("my-bark")  # writes a model card too
processor.save_pretrained("my-bark")
semantic_tokenizer.save("my-bark/semantic_tokenizer")
