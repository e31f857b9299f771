"""Times one implementation of Bark in a process of its own; `compare.py` starts it.

It reads a job as JSON from its first argument and prints one line of JSON. For stock Transformers it needs nothing of this
package, so that another environment can run it.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

TEXT_TOKENS = 20
"""Tokens of the text, whatever the length of the speech: both implementations read a prompt of fixed length."""


def load(job: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """The model and the generation config of each stage."""
    dtype = torch.bfloat16 if job.get("precision") == "bf16" else torch.float32
    if job["implementation"] == "stock":
        from transformers.models.bark import generation_configuration_bark as configs
        from transformers.models.bark.modeling_bark import BarkModel as StockModel

        model = StockModel.from_pretrained(job["folder"], dtype=dtype).to(job["device"]).eval()
        typed = {
            "semantic": configs.BarkSemanticGenerationConfig(**model.generation_config.semantic_config),
            "coarse": configs.BarkCoarseGenerationConfig(**model.generation_config.coarse_acoustics_config),
            "fine": configs.BarkFineGenerationConfig(**model.generation_config.fine_acoustics_config),
        }
        return model, typed
    from transformers_bark import BarkModel

    if job["engine"] == "onnxruntime":
        engine = {name: job.get(name) for name in ("engine", "precision", "cache_precision")}
        model = BarkModel.from_pretrained(job["folder"], keep_weights=False, **engine)
    else:
        model = BarkModel.from_pretrained(job["folder"], dtype=dtype, engine=job["engine"]).to(job["device"]).eval()
    config = model.generation_config
    stages = (config.semantic_config, config.coarse_acoustics_config, config.fine_acoustics_config)
    return model, dict(zip(("semantic", "coarse", "fine"), stages, strict=True))


class Stages:
    """Each stage on random tokens of a given length; the same calls for both implementations."""

    def __init__(self, job: dict[str, Any]) -> None:
        self.model, self.configs = load(job)
        self.stock = job["implementation"] == "stock"
        self.device = job["device"]
        self.size = self.model.generation_config.codebook_size
        self.greedy = bool(job.get("greedy"))
        self.generator = torch.Generator().manual_seed(0)

    def semantic(self, batch: int, n_tokens: int) -> Callable[[], Any]:
        """Text to so many tokens: the end is forbidden."""
        config = self.configs["semantic"]
        length = config.max_input_semantic_length
        ids = self._random(1, 90, (batch, length))
        mask = (torch.arange(length, device=self.device) < TEXT_TOKENS).long().expand(batch, -1)
        count = {"max_new_tokens": n_tokens, "do_sample": not self.greedy, "temperature": 0.7}
        forced = {"min_new_tokens": n_tokens} if self.stock else {"allow_early_stop": False, "progress": False}
        call = self.model.semantic.generate
        return lambda: call(ids, semantic_generation_config=config, attention_mask=mask, **count, **forced)

    def coarse(self, batch: int, n_tokens: int) -> Callable[[], Any]:
        """So many semantic tokens to coarse ones."""
        config = self.configs["semantic"]
        tokens = self._random(0, config.semantic_vocab_size, (batch, n_tokens))
        own = {} if self.stock else {"progress": False}
        configs = {"semantic_generation_config": config, "coarse_generation_config": self.configs["coarse"]}
        options = {"codebook_size": self.size, "do_sample": not self.greedy, "temperature": 0.7}
        return lambda: self.model.coarse_acoustics.generate(tokens, **configs, **options, **own)

    def fine(self, batch: int, n_frames: int) -> Callable[[], Any]:
        """So many frames of coarse codes to all codebooks."""
        first, n_codebooks = self.configs["semantic"].semantic_vocab_size, self.configs["coarse"].n_coarse_codebooks
        codes = self._random(0, self.size, (batch, n_frames, n_codebooks))
        ids = (codes + first + self.size * torch.arange(n_codebooks, device=self.device)).flatten(1)
        own = {} if self.stock else {"progress": False}
        configs = {f"{name}_generation_config": config for name, config in self.configs.items()}
        # greedy: stock takes 1.0 for that, and here None says it
        temperature = (1.0 if self.stock else None) if self.greedy else 0.5
        options = {"codebook_size": self.size, "temperature": temperature}
        return lambda: self.model.fine_acoustics.generate(ids, **configs, **options, **own)

    def codec(self, batch: int, n_frames: int) -> Callable[[], Any]:
        """All codes to audio."""
        codes = self._random(0, self.size, (batch, self.configs["fine"].n_fine_codebooks, n_frames))
        return lambda: self._decode(codes)

    def _random(self, low: int, high: int, shape: tuple[int, ...]) -> Tensor:
        return torch.randint(low, high, shape, generator=self.generator).to(self.device)

    def wait(self) -> None:
        """Until the device has done what it was given."""
        if self.device == "cuda":
            torch.cuda.synchronize()

    @torch.no_grad()
    def _decode(self, codes: Tensor) -> Any:
        return self.model.codec_decode(codes)


def token_counts(stages: Stages, seconds: float) -> dict[str, int]:
    """Tokens or frames that each stage makes for so much audio, or reads for it."""
    rates = (stages.configs["semantic"].semantic_rate_hz, stages.configs["coarse"].coarse_rate_hz)
    counts = {"semantic": round(seconds * rates[0]), "coarse": round(seconds * rates[0])}
    return {**counts, "fine": round(seconds * rates[1]), "codec": round(seconds * rates[1])}


def measure(job: dict[str, Any], report: Callable[[dict[str, Any]], None] = lambda result: None) -> dict[str, Any]:
    """Seconds of each stage for every (batch, seconds of audio) of the job, and of what had to be done before.

    `report` is given each result when it is there. Where the job says `repeats`, the fastest counts.
    """
    torch.set_num_threads(job["threads"])
    torch.manual_seed(0)
    stages = Stages(job)
    results: list[dict[str, Any]] = []
    peaks = []
    for batch, seconds in job["cases"]:
        if stages.device == "cuda":
            torch.cuda.reset_peak_memory_stats()
        counts = token_counts(stages, seconds)
        times, before = {}, {}
        for name, count in counts.items():
            started = time.perf_counter()
            if job.get("engine") in ("compiled", "auto"):  # each shape is compiled, or recorded, once
                getattr(stages, name)(batch, count)()
            elif not results:  # the first case of a process warms each stage up
                getattr(stages, name)(batch, min(count, 8))()
            stages.wait()
            before[name] = time.perf_counter() - started
            call = getattr(stages, name)(batch, count)
            times[name] = min(_time(call, stages.wait) for _ in range(job.get("repeats", 1)))
        made = {**counts, "coarse": counts["fine"] * stages.configs["coarse"].n_coarse_codebooks}
        results.append({"batch": batch, "seconds": seconds, "tokens": made, "times": times})
        peaks.append(peak_memory(stages.device))
        report({**results[-1], "before": before, "peak_mb": peaks[-1]})
    return {"results": results, "peak_mb": max(peaks)}


def _time(call: Callable[[], Any], wait: Callable[[], None]) -> float:
    wait()
    started = time.perf_counter()
    call()
    wait()
    return time.perf_counter() - started


def peak_memory(device: str) -> float:
    """Most memory that this process held, in MB, on a GPU that of its tensors there."""
    if device == "cuda":
        return torch.cuda.max_memory_allocated() / 2**20
    # `getrusage` would count what its parent held when it was started
    status = Path("/proc/self/status")
    if status.exists():
        return next(int(line.split()[1]) for line in status.read_text().splitlines() if line.startswith("VmHWM")) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20  # bytes on macOS


if __name__ == "__main__":
    print(json.dumps(measure(json.loads(sys.argv[1]))))
