"""Training: data from a teacher, a codec, semantic tokens, and the three transformers.

Needs the extra `train`; synthesis by the teacher needs `recipe`. The loops are `transformers.Trainer`'s, so
`accelerate launch` spreads them over devices, and a run that was stopped goes on from its last checkpoint.
"""

from .finetune import evaluate_stage, train_stage
from .prepare import encode_speech, load_recordings, load_semantic_tokenizer
from .semantic_tokenizer import SemanticTokenizer
from .targets import CoarseForTraining, CoarseTargets, FineTargets, SemanticForTraining, SemanticTargets
from .train import run_training

__all__ = [
    "CoarseForTraining",
    "CoarseTargets",
    "FineTargets",
    "SemanticForTraining",
    "SemanticTargets",
    "SemanticTokenizer",
    "encode_speech",
    "evaluate_stage",
    "load_recordings",
    "load_semantic_tokenizer",
    "run_training",
    "train_stage",
]
