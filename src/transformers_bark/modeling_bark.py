"""The three transformers of Bark and the model that joins them with the codec.

Attention goes through Transformers' attention interface, so `eager`, `sdpa` and `flash_attention_2` are one code path and
no mask is stored. Generation lives in `transformers_bark.generation`; the `generate` methods here only call it.
"""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoModel, GenerationConfig, GenerationMixin
from transformers.cache_utils import Cache, DynamicCache
from transformers.masking_utils import create_bidirectional_mask
from transformers.modeling_outputs import CausalLMOutputWithPast, MaskedLMOutput
from transformers.utils import CONFIG_NAME

from . import codec, hub
from .compat import causal_mask, causal_output, one_cache
from .configuration_bark import (
    BarkCoarseConfig,
    BarkConfig,
    BarkFineConfig,
    BarkSemanticConfig,
    BarkSubModelConfig,
)
from .engines import EngineChoice
from .generation import speech, sub_models
from .generation.output import BarkGenerateOutput
from .generation.processors import check_audio
from .generation.progress import StageCallback
from .generation.streaming import CHUNK_SECONDS, BarkStreamOutput
from .generation_configuration_bark import (
    BarkCoarseGenerationConfig,
    BarkFineGenerationConfig,
    BarkGenerationConfig,
    BarkSemanticGenerationConfig,
    check_compatible,
)
from .low_memory import load_without_blocks
from .modeling_base import (
    BarkPreTrainedModel,
    cross_entropy,
    packed_positions,
    reject_unknown,
    require_one,
    same_sequence,
)
from .modeling_layers import BarkBlock


class BarkCausalModel(BarkPreTrainedModel, GenerationMixin):
    """A GPT-2-like decoder with learned positions and an untied head."""

    config: BarkSubModelConfig

    def __init__(self, config: BarkSubModelConfig) -> None:
        super().__init__(config)
        self.loss_type = "ForCausalLM"  # tells `Trainer` that the labels are shifted
        self.input_embeds_layer = nn.Embedding(config.input_vocab_size, config.hidden_size)
        self.position_embeds_layer = nn.Embedding(config.block_size, config.hidden_size)
        self.drop = nn.Dropout(config.dropout)
        self.layers = nn.ModuleList(BarkBlock(config, True, index) for index in range(config.num_layers))
        self.layernorm_final = nn.LayerNorm(config.hidden_size, bias=config.bias)
        self.lm_head = nn.Linear(config.hidden_size, config.output_vocab_size, bias=False)
        self.gradient_checkpointing = False
        self.post_init()

    def get_input_embeddings(self) -> nn.Embedding:
        return self.input_embeds_layer

    def set_input_embeddings(self, value: nn.Embedding) -> None:
        self.input_embeds_layer = value

    def get_output_embeddings(self) -> None:
        """None: the head must never be tied, though the Hub's configs say `tie_word_embeddings: true`."""
        return None

    def forward(
        self,
        input_ids: Tensor | None = None,
        past_key_values: Cache | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        labels: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        use_cache: bool | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        logits_to_keep: int | Tensor = 0,
        cache: Cache | None = None,
        **kwargs: Any,
    ) -> CausalLMOutputWithPast | tuple:
        """Logits of the next token at every position.

        Args:
            input_ids: [batch, length]; or `inputs_embeds`: [batch, length, hidden].
            past_key_values: keys and values of the positions before; Transformers 5.24 and later call it `cache`.
            attention_mask: [batch, past + length], 1 where a token is real; or a 4-D mask.
            position_ids: [batch or 1, length]; counted on from the cache when absent, padding included. Where they start anew
                in a row without a mask, sequences are packed, and none looks into another.
            labels: [batch, length], the input ids themselves with -100 where no loss is wanted; shifted here.
            logits_to_keep: an int keeps the last positions (0 keeps all), a tensor of indices those positions.
            cache: the other name of `past_key_values`.
            kwargs: `shift_labels` [batch, length], in place of `labels`: the token that follows each position; what
                `DataCollatorWithFlattening` says of packed sequences.

        Returns:
            The output has the cache as `past_key_values`, and as `cache` where the installed Transformers has that name.

        Raises:
            TypeError: an unknown keyword argument.
            ValueError: neither or both inputs, both names of the cache, a position past `block_size`, labels with `logits_to_keep`.
        """
        # as an argument of its own `Trainer` would wait for it, and evaluate without a loss
        shift_labels = kwargs.pop("shift_labels", None)
        reject_unknown(self, kwargs)
        require_one(input_ids, inputs_embeds)
        cache = one_cache(cache, past_key_values)
        use_cache, output_attentions, output_hidden_states, return_dict = self._flags(
            ("use_cache", use_cache),
            ("output_attentions", output_attentions),
            ("output_hidden_states", output_hidden_states),
            ("return_dict", return_dict),
        )
        has_labels = labels is not None or shift_labels is not None
        if has_labels and not (isinstance(logits_to_keep, int) and logits_to_keep == 0):
            raise ValueError("`labels` need the logits of all positions: leave `logits_to_keep` out")
        if self.training and self.gradient_checkpointing:  # the blocks would run, and write, twice
            use_cache, cache = False, None
        use_cache = use_cache and not (self.training and has_labels)
        if inputs_embeds is None:
            inputs_embeds = self.input_embeds_layer(input_ids)
        if position_ids is None:
            position_ids = packed_positions(kwargs, inputs_embeds.shape[1])
        given = cache
        if use_cache and cache is None:
            cache = DynamicCache(config=self.config)
        past = cache.get_seq_length() if cache is not None else 0
        embeds = self._embed_positions(inputs_embeds, position_ids, past)
        # beside a cache, positions are not looked at for packed sequences: one that is new has no say
        mask = causal_mask(self.config, embeds, attention_mask, given, position_ids)
        packing = self._packing(kwargs, position_ids)
        hidden, depths, attentions = self._run_blocks(
            embeds, mask, cache, output_attentions, output_hidden_states, **packing
        )
        kept = slice(-logits_to_keep, None) if isinstance(logits_to_keep, int) else logits_to_keep
        logits = self.lm_head(hidden[:, kept])
        loss = None
        if shift_labels is not None:
            loss = cross_entropy(logits, shift_labels, kwargs.get("num_items_in_batch"))
        elif labels is not None:
            loss = cross_entropy(logits[:, :-1], labels[:, 1:], kwargs.get("num_items_in_batch"))
        output = causal_output(
            cache if use_cache else None,
            loss=loss,
            logits=logits,
            hidden_states=depths,
            attentions=attentions,
        )
        return output if return_dict else output.to_tuple()


class BarkSemanticModel(BarkCausalModel):
    """Text -> semantic tokens."""

    base_model_prefix = "semantic"
    config: BarkSemanticConfig

    @torch.no_grad()
    def generate(
        self,
        input_ids: Tensor,
        semantic_generation_config: BarkSemanticGenerationConfig | None = None,
        history_prompt: Any = None,
        attention_mask: Tensor | None = None,
        **options: Any,
    ) -> Tensor:
        """Text ids [batch, length] -> semantic tokens [batch, longest row], padded with `semantic_pad_token`.

        `options` override the config: see `transformers_bark.generation.options`; `seed` fixes the draws.
        """
        return sub_models.semantic(self, input_ids, semantic_generation_config, history_prompt, attention_mask, options)


class BarkCoarseModel(BarkCausalModel):
    """Semantic tokens -> the first codebooks."""

    base_model_prefix = "coarse_acoustics"
    config: BarkCoarseConfig

    @torch.no_grad()
    def generate(
        self,
        semantic_output: Tensor,
        semantic_generation_config: BarkSemanticGenerationConfig | None = None,
        coarse_generation_config: BarkCoarseGenerationConfig | None = None,
        codebook_size: int = 1024,
        history_prompt: Any = None,
        return_output_lengths: bool | None = None,
        **options: Any,
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Semantic tokens [batch, length], padded -> coarse ids [batch, longest row], interleaved and offset.

        With `return_output_lengths` also the number of coarse tokens of each row, [batch].
        """
        return sub_models.coarse(
            self,
            semantic_output,
            semantic_generation_config,
            coarse_generation_config,
            codebook_size,
            history_prompt,
            bool(return_output_lengths),
            options,
        )


def _one_codebook(value: int | Tensor) -> int:
    """The codebook of a batch, which a collator may have stacked row by row."""
    if isinstance(value, int):
        return value
    numbers = {int(number) for number in torch.as_tensor(value).flatten().tolist()}
    if len(numbers) != 1:
        raise ValueError(f"`codebook_idx` must be the same for all rows of a batch, got {sorted(numbers)}")
    return numbers.pop()


class BarkFineModel(BarkPreTrainedModel):
    """Coarse codes -> the remaining codebooks, one at a time, looking both ways."""

    base_model_prefix = "fine_acoustics"
    config: BarkFineConfig
    main_input_name = "codebook_idx"

    def __init__(self, config: BarkFineConfig) -> None:
        super().__init__(config)
        self.loss_type = "ForMaskedLM"  # tells `Trainer` that the labels are not shifted
        n_heads = config.n_codes_total - config.n_codes_given
        self._tied_weights_keys = {
            f"lm_heads.{i}.weight": f"input_embeds_layers.{i + 1}.weight" for i in range(n_heads)
        }
        self.input_embeds_layers = nn.ModuleList(
            nn.Embedding(config.input_vocab_size, config.hidden_size) for _ in range(config.n_codes_total)
        )
        self.position_embeds_layer = nn.Embedding(config.block_size, config.hidden_size)
        self.drop = nn.Dropout(config.dropout)
        self.layers = nn.ModuleList(BarkBlock(config, False, index) for index in range(config.num_layers))
        self.layernorm_final = nn.LayerNorm(config.hidden_size)
        self.lm_heads = nn.ModuleList(
            nn.Linear(config.hidden_size, config.output_vocab_size, bias=False) for _ in range(n_heads)
        )
        self.gradient_checkpointing = False
        self.n_codes_total = config.n_codes_total
        self.post_init()

    def get_input_embeddings(self) -> nn.ModuleList:
        """One embedding a codebook."""
        return self.input_embeds_layers

    def set_input_embeddings(self, value: nn.ModuleList) -> None:
        self.input_embeds_layers = value

    def get_output_embeddings(self) -> nn.ModuleList:
        """One head a predicted codebook."""
        return self.lm_heads

    def set_output_embeddings(self, value: nn.ModuleList) -> None:
        self.lm_heads = value

    def resize_token_embeddings(
        self, new_num_tokens: int | None = None, pad_to_multiple_of: int | None = None, mean_resizing: bool = True
    ) -> nn.ModuleList:
        """Resizes every codebook's embedding and head to `new_num_tokens` rows; None leaves them as they are."""
        if new_num_tokens is None and pad_to_multiple_of is None:
            return self.input_embeds_layers
        self.input_embeds_layers = nn.ModuleList(
            self._get_resized_embeddings(layer, new_num_tokens, pad_to_multiple_of, mean_resizing)
            for layer in self.input_embeds_layers
        )
        size = int(self.get_submodule("input_embeds_layers.0").weight.shape[0])
        self.lm_heads = nn.ModuleList(self._get_resized_lm_head(head, size) for head in self.lm_heads)
        self.config.input_vocab_size = self.config.output_vocab_size = size
        self.tie_weights()
        return self.input_embeds_layers

    def forward(
        self,
        codebook_idx: int | Tensor,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        labels: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        first_frame: int = 0,
        **kwargs: Any,
    ) -> MaskedLMOutput | tuple:
        """Logits of codebook `codebook_idx` at every frame, or at those from `first_frame` on.

        Args:
            codebook_idx: codebook to predict, `n_codes_given` to `n_codes_total - 1`; the same for the whole batch, once or, as
                collators stack it, for each row.
            input_ids: [batch, frame, codebook]; only codebooks up to `codebook_idx` are read (and may be all there are);
                or `inputs_embeds`: [batch, frame, hidden], their summed embeddings.
            attention_mask: [batch, frame], 1 where a frame is real.
            position_ids: [batch or 1, frame]; where they start anew in a row without a mask, sequences are packed.
            labels: [batch, frame], the codes of `codebook_idx`, -100 where no loss is wanted; not shifted.
            first_frame: frames before it are looked at, but have no logits: the last block leaves them out.

        Raises:
            TypeError: an unknown keyword argument.
            ValueError: a codebook that has no head, neither or both inputs, too few codebooks, too many frames,
                `first_frame` with a mask or with labels.
        """
        reject_unknown(self, kwargs)
        require_one(input_ids, inputs_embeds)
        codebook_idx = _one_codebook(codebook_idx)
        given, total = self.config.n_codes_given, self.config.n_codes_total
        if not given <= codebook_idx < total:
            raise ValueError(
                f"`codebook_idx` must be in [{given}, {total}), got {codebook_idx}: codebooks before have no head"
            )
        output_attentions, output_hidden_states, return_dict = self._flags(
            ("output_attentions", output_attentions),
            ("output_hidden_states", output_hidden_states),
            ("return_dict", return_dict),
        )
        if first_frame and (attention_mask is not None or labels is not None):
            raise ValueError("`first_frame` goes with neither `attention_mask` nor `labels`")
        if inputs_embeds is None:
            inputs_embeds = self._embed_codes(input_ids, codebook_idx)
        if position_ids is None:
            position_ids = packed_positions(kwargs, inputs_embeds.shape[1])
        embeds = self._embed_positions(inputs_embeds, position_ids)
        packing = self._packing(kwargs, position_ids)
        if (
            attention_mask is None
            and position_ids is not None
            and self.config._attn_implementation in ("sdpa", "eager")
        ):
            attention_mask = same_sequence(position_ids)
        mask = create_bidirectional_mask(self.config, embeds, attention_mask)
        hidden, depths, attentions = self._run_blocks(
            embeds, mask, None, output_attentions, output_hidden_states, first_frame, **packing
        )
        logits = self.lm_heads[codebook_idx - given](hidden)
        loss = None if labels is None else cross_entropy(logits, labels, kwargs.get("num_items_in_batch"))
        output = MaskedLMOutput(loss=loss, logits=logits, hidden_states=depths, attentions=attentions)
        return output if return_dict else output.to_tuple()

    def embed(self, codebook_idx: int, input_ids: Tensor) -> Tensor:
        """Codes [batch, frame, codebook] -> what the first block is fed, [batch, frame, hidden]."""
        return self._embed_positions(self._embed_codes(input_ids, codebook_idx))

    def _embed_codes(self, input_ids: Any, codebook_idx: int) -> Tensor:
        """[batch, frame, codebook] -> the sum of the embeddings of codebooks 0 to `codebook_idx`: [batch, frame, hidden]."""
        if input_ids.ndim != 3 or input_ids.shape[-1] <= codebook_idx:
            raise ValueError(
                f"`input_ids` must be [batch, frame, codebook] with more than {codebook_idx} codebooks, got {tuple(input_ids.shape)}"
            )
        layers = self.input_embeds_layers[: codebook_idx + 1]
        # summed in one call, as the original does: one by one would round otherwise in the last bit
        return torch.stack([layer(input_ids[..., index]) for index, layer in enumerate(layers)], dim=-1).sum(-1)

    @torch.no_grad()
    def generate(
        self,
        coarse_output: Tensor,
        semantic_generation_config: BarkSemanticGenerationConfig | None = None,
        coarse_generation_config: BarkCoarseGenerationConfig | None = None,
        fine_generation_config: BarkFineGenerationConfig | None = None,
        codebook_size: int = 1024,
        history_prompt: Any = None,
        **options: Any,
    ) -> Tensor:
        """Coarse ids [batch, length], interleaved and offset -> codes [batch, codebook, frame]."""
        return sub_models.fine(
            self,
            coarse_output,
            semantic_generation_config,
            coarse_generation_config,
            fine_generation_config,
            codebook_size,
            history_prompt,
            options,
        )


class BarkModel(BarkPreTrainedModel, GenerationMixin):
    """Text to audio: `semantic`, `coarse_acoustics`, `fine_acoustics` and `codec_model`."""

    config: BarkConfig
    # running means of EnCodec's own training: a small checkpoint leaves them out, and nothing here reads them
    _keys_to_ignore_on_load_missing = [r"\.codebook\.(embed_avg|cluster_size)$"]

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.semantic = BarkSemanticModel(config.semantic_config)
        self.coarse_acoustics = BarkCoarseModel(config.coarse_acoustics_config)
        self.fine_acoustics = BarkFineModel(config.fine_acoustics_config)
        # the codec has no attention, and refuses to be asked for one
        self.codec_model = AutoModel.from_config(config.codec_config, attn_implementation="eager")
        self.fine_acoustics_hook: Any = None
        self.codec_model_hook: Any = None
        self.post_init()

    @classmethod
    def from_pretrained(
        cls,
        *args: Any,
        engine: str = "torch",
        precision: str | None = None,
        cache_precision: str | None = None,
        keep_weights: bool = True,
        **kwargs: Any,
    ) -> Any:
        """As `PreTrainedModel.from_pretrained`, with an engine.

        Args:
            engine, precision, cache_precision: see `set_engine`.
            keep_weights: False leaves the blocks' weights on the disk, where "onnxruntime" has graphs of them: the model speaks in
                a fraction of the memory, and cannot be trained or saved.

        Raises:
            ValueError: an engine or precision that there is not; `keep_weights=False` with another engine, or for a checkpoint that
                is not one safetensors file.
            TypeError: `keep_weights=False` with more than a source and `revision`, `cache_dir`, `token`, `local_files_only`.
        """
        if keep_weights:
            return super().from_pretrained(
                *args, engine=engine, precision=precision, cache_precision=cache_precision, **kwargs
            )
        choice = EngineChoice(engine, precision, None, cache_precision)
        return load_without_blocks(cls, *args, choice=choice, **kwargs)

    @classmethod
    def can_generate(cls) -> bool:
        return True

    def get_input_embeddings(self) -> nn.Embedding:
        """Those of the text, in the semantic stage."""
        return self.semantic.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Embedding) -> None:
        self.semantic.set_input_embeddings(value)

    def get_output_embeddings(self) -> None:
        """None: the stages have heads of their own, which are not tied to the text's embeddings."""
        return None

    def resize_token_embeddings(self, *args: Any, **kwargs: Any) -> nn.Embedding:
        """Resizes the embeddings of the text; those of the other stages belong to their own models."""
        return self.semantic.resize_token_embeddings(*args, **kwargs)

    def set_attn_implementation(self, attn_implementation: str | dict[str, str], *args: Any, **kwargs: Any) -> None:
        """As `PreTrainedModel.set_attn_implementation`, for the three transformers."""
        if isinstance(attn_implementation, str):
            parts = {name: attn_implementation for name in self.config.sub_configs}
            attn_implementation = {"": attn_implementation, **parts, "codec_config": "eager"}
        super().set_attn_implementation(attn_implementation, *args, **kwargs)

    @property
    def generation_config(self) -> BarkGenerationConfig:
        """Always typed: whatever Transformers sets when it loads a folder is converted.

        Whether the models have room for its tokens and windows is checked when they speak: a model that cannot speak can be
        saved and loaded, and trained.
        """
        return self._generation_config

    @generation_config.setter
    def generation_config(self, value: GenerationConfig | None) -> None:
        self._generation_config = BarkGenerationConfig.typed(value)

    def enable_cpu_offload(
        self,
        accelerator_id: int | None = 0,
        device: torch.device | str | None = None,
        gpu_id: int | None = None,
    ) -> None:
        """Keeps the sub-models on the CPU and moves each to the accelerator while it works.

        Args:
            accelerator_id: which accelerator.
            device: execution device, in place of the accelerator.
            gpu_id: former name of `accelerator_id`.

        Raises:
            RuntimeError: there is no accelerator and no `device` is given.
        """
        from accelerate import cpu_offload_with_hook

        if device is None:
            accelerator = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
            if accelerator is None:
                raise RuntimeError("`enable_cpu_offload` needs an accelerator, and none was found")
            device = torch.device(accelerator.type, (accelerator_id if gpu_id is None else gpu_id) or 0)
        self.to("cpu")
        # the prompt's embeddings are looked up before the semantic model itself runs
        cpu_offload_with_hook(self.semantic.input_embeds_layer, device)
        hook = None
        for model in (self.semantic, self.coarse_acoustics, self.fine_acoustics):
            _, hook = cpu_offload_with_hook(model, device, prev_module_hook=hook)
        self.fine_acoustics_hook = hook
        _, self.codec_model_hook = cpu_offload_with_hook(self.codec_model, device, prev_module_hook=hook)

    def codec_decode(
        self, fine_output: Tensor, output_lengths: Sequence[int] | Tensor | None = None
    ) -> Tensor | list[Tensor]:
        """Codes [batch, codebook, frame] -> audio [batch, samples]; with `output_lengths` (frames a row) a list of [samples].

        Raises:
            ValueError: samples that are not numbers.
        """
        rows = list(fine_output)
        if output_lengths is not None:
            rows = [row[:, : int(n)] for row, n in zip(fine_output, output_lengths, strict=True)]
        audio = codec.decode(self.codec_model, rows)
        check_audio(audio)
        return torch.stack(audio) if output_lengths is None else audio

    @torch.no_grad()
    def generate(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        history_prompt: Any = None,
        return_output_lengths: bool | None = None,
        return_dict_in_generate: bool = False,
        *,
        generation_config: BarkGenerationConfig | None = None,
        seed: int | Sequence[int] | None = None,
        progress: bool | None = None,
        stage_callback: StageCallback | None = None,
        **options: Any,
    ) -> Tensor | tuple[Tensor, list[int]] | BarkGenerateOutput:
        """Speaks each row of text.

        Args:
            input_ids: [batch, length] of the tokenizer, without offset.
            attention_mask: [batch, length], 1 where a token is text; absent, the tokenizer's pad id 0 at the end of a row
                is taken for padding.
            history_prompt: a voice (`VoicePreset` or a mapping with `semantic_prompt`, `coarse_prompt`, `fine_prompt`), or a
                list with one voice or None per row.
            return_output_lengths: return (audio, samples of each row).
            return_dict_in_generate: return a `BarkGenerateOutput` with the tokens of every stage.
            generation_config: in place of the model's own. One of Transformers' own, or a dict, changes what it sets: its
                stages, and options as below.
            seed: an int for all rows or one per row; a row's tokens are then the same alone and in any batch.
            progress: False for no progress bars; by default they show on a terminal.
            stage_callback: called with a `StageProgress` as each stage advances.
            options: options for every stage, or for one with the prefix `semantic_`, `coarse_` or `fine_`: see
                `transformers_bark.generation.options`. With `num_return_sequences` each text has so many rows in a line, the
                first of which is what it would be alone.

        Returns:
            audio [batch, samples], silent after the end of a row, unless one of the flags asks for more.

        Raises:
            TypeError: an unknown option, or one that cannot act.
            ValueError: a bad value, a row without text, a voice or a generation config that does not fit the model, logits or
                audio that are not numbers.
        """
        config = self.generation_config.with_changes(generation_config)
        check_compatible(self.config, config)
        output = speech.speech(
            self, input_ids, attention_mask, history_prompt, config, seed, progress, stage_callback, options
        )
        if return_dict_in_generate or config.return_dict_in_generate:
            return output
        return (output.audio, output.audio_lengths.tolist()) if return_output_lengths else output.audio

    def generate_stream(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        history_prompt: Any = None,
        return_dict_in_generate: bool = False,
        *,
        chunk_seconds: float = CHUNK_SECONDS,
        generation_config: BarkGenerationConfig | None = None,
        seed: int | None = None,
        stage_callback: StageCallback | None = None,
        **options: Any,
    ) -> Iterator[Tensor] | Iterator[BarkStreamOutput]:
        """Speaks one text in pieces: the first is there when its windows are, while later ones are still to be made.

        Semantic and coarse tokens are those of `generate` with the same seed. The fine stage sees the pieces before, not
        those to come, so its codebooks may differ.

        Args:
            input_ids: [1, length]; this, `attention_mask`, `history_prompt`, `generation_config`, `seed`, `stage_callback` and
                `options` are as for `generate`.
            return_dict_in_generate: yield a `BarkStreamOutput` with the codes too.
            chunk_seconds: least length of a piece; the first is as short as it can be, the last as long as the rest is.

        Yields:
            audio [samples] of each piece; together they are what the codec makes of all their codes.

        Raises:
            TypeError: an unknown option.
            ValueError: more than one row, a bad value, a codec that looks ahead; at the call, before anything is made.
        """
        config = self.generation_config.with_changes(generation_config)
        check_compatible(self.config, config)
        pieces = speech.stream(
            self, input_ids, attention_mask, history_prompt, config, chunk_seconds, seed, stage_callback, options
        )
        whole = return_dict_in_generate or config.return_dict_in_generate
        return pieces if whole else (piece.audio for piece in pieces)

    def save_pretrained(self, save_directory: Any, *args: Any, auto_map: bool = False, **kwargs: Any) -> None:
        """As `PreTrainedModel.save_pretrained`, plus a model card where there is none.

        Args:
            auto_map: also write the files that let `trust_remote_code=True` find this package.
        """
        with hub.auto_map_in(self.config, auto_map):
            super().save_pretrained(os.fspath(save_directory), *args, **kwargs)
        self._finish_folder(save_directory)

    def push_to_hub(self, repo_id: str, *args: Any, auto_map: bool = False, **kwargs: Any) -> Any:
        """As `PreTrainedModel.push_to_hub`, with our model card.

        Args:
            auto_map: as in `save_pretrained`.
        """
        with hub.auto_map_in(self.config, auto_map):
            return super().push_to_hub(repo_id, *args, **kwargs)

    def _upload_modified_files(self, working_dir: Any, repo_id: str, *args: Any, **kwargs: Any) -> Any:
        """Uploads with our card in place of the generic one."""
        self._finish_folder(working_dir, repo_id)
        return super()._upload_modified_files(working_dir, repo_id, *args, **kwargs)

    def _finish_folder(self, folder: Any, name: str | None = None) -> None:
        if not (Path(folder) / CONFIG_NAME).is_file():  # an adapter is saved alone
            return
        hub.finish_model_folder(folder, self.config._name_or_path or "", self.generation_config.sample_rate, name)


__all__ = [
    "BarkCausalModel",
    "BarkCoarseModel",
    "BarkFineModel",
    "BarkModel",
    "BarkPreTrainedModel",
    "BarkSemanticModel",
]
