"""Transformers' generation options that cannot act here, and why."""

from __future__ import annotations

_BEAMS = "each row follows one sequence, there are no beams"
_DRAFT = "no second model proposes tokens; the engine 'onnxruntime' has a draft of its own"
_TWICE = "it needs other runs of the model at every step"
_NO_ENCODER = "there is no encoder"
_ENGINE = "the engine keeps its own cache: see `set_engine`"
_TOKENS = "the special tokens are fields of the stages' generation configs"
_OUTPUTS = "`return_dict_in_generate=True` returns the tokens of every stage, and nothing more is kept"

REASONS: dict[str, str] = {
    **dict.fromkeys(("num_beams", "num_beam_groups", "early_stopping", "length_penalty", "diversity_penalty"), _BEAMS),
    **dict.fromkeys(("constraints", "force_words_ids"), f"it is for beams, and {_BEAMS}"),
    **dict.fromkeys(("penalty_alpha", "low_memory", "dola_layers", "guidance_scale"), _TWICE),
    **dict.fromkeys(("negative_prompt_ids", "negative_prompt_attention_mask"), _TWICE),
    **dict.fromkeys(
        (
            "assistant_model",
            "assistant_tokenizer",
            "assistant_early_exit",
            "assistant_confidence_threshold",
            "assistant_lookbehind",
            "assistant_ensemble_weight",
            "is_assistant",
            "max_matching_ngram_size",
            "num_assistant_tokens",
            "num_assistant_tokens_schedule",
            "prompt_lookup_num_tokens",
            "speculation_type",
            "target_lookbehind",
            "use_mtp",
        ),
        _DRAFT,
    ),
    **dict.fromkeys(
        ("encoder_repetition_penalty", "encoder_no_repeat_ngram_size", "decoder_start_token_id"), _NO_ENCODER
    ),
    **dict.fromkeys(
        ("cache_implementation", "cache_config", "max_cache_len", "past_key_values", "prefill_chunk_size"), _ENGINE
    ),
    **dict.fromkeys(("compile_config", "disable_compile"), "`set_engine('compiled')` compiles"),
    **dict.fromkeys(("eos_token_id", "bos_token_id", "forced_bos_token_id", "forced_eos_token_id"), _TOKENS),
    **dict.fromkeys(("output_scores", "output_logits", "output_attentions", "output_hidden_states"), _OUTPUTS),
    "max_length": "the prompt's length is fixed: say `max_new_tokens`",
    "min_length": "the prompt's length is fixed: say `min_new_tokens`",
    "stop_strings": "the stages' tokens are no text: give `stopping_criteria`",
    "token_healing": "the text is not continued",
    "prefix_allowed_tokens_fn": "give it as a `logits_processor`",
    "watermarking_config": "the tokens cannot be read back from the audio, so nobody could find the mark",
    "streamer": "`generate_stream` gives the audio in pieces",
    "synced_gpus": "the stages take as many steps as their rows need",
    "custom_generate": "the stages are Bark's own",
    "tokenizer": "the stages' tokens are no text",
    "inputs_embeds": "the prompt is made of `input_ids`",
    "continuous_batching_config": "rows that are finished leave the batch without it",
}
"""By name of the option."""

WITHOUT_A_PAST = "the fine stage chooses all frames of a codebook at once: there are no tokens before"
FIXED_LENGTH = "the semantic tokens decide how long the later stages are"


def reason_of_stage(name: str, stage: str) -> str:
    """Why a stage does not have an option that another has."""
    if name in ("max_new_tokens", "min_new_tokens", "exponential_decay_length_penalty"):
        return FIXED_LENGTH
    if stage == "fine" and name not in ("max_coarse_history", "sliding_window_len"):
        return WITHOUT_A_PAST
    return f"the {stage} stage has no such option"
