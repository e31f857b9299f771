"""Tables of names: the original library's and EnCodec's against Transformers'.

A table is a list of (pattern, replacement). A name that no pattern matches, or a target that is not filled, is an error.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

Table = Sequence[tuple[str, str]]

BLOCK = [
    (r"transformer\.h\.(\d+)\.ln_([12])\.(weight|bias)", r"layers.\1.layernorm_\2.\3"),
    (r"transformer\.h\.(\d+)\.attn\.c_attn\.(weight|bias)", r"layers.\1.attn.att_proj.\2"),
    (r"transformer\.h\.(\d+)\.attn\.c_proj\.(weight|bias)", r"layers.\1.attn.out_proj.\2"),
    (r"transformer\.h\.(\d+)\.mlp\.c_fc\.(weight|bias)", r"layers.\1.mlp.in_proj.\2"),
    (r"transformer\.h\.(\d+)\.mlp\.c_proj\.(weight|bias)", r"layers.\1.mlp.out_proj.\2"),
    (r"transformer\.ln_f\.(weight|bias)", r"layernorm_final.\1"),
    (r"transformer\.wpe\.weight", r"position_embeds_layer.weight"),
]
CAUSAL: Table = [
    *BLOCK,
    (r"transformer\.wte\.weight", r"input_embeds_layer.weight"),
    (r"lm_head\.weight", r"lm_head.weight"),
]
FINE: Table = [
    *BLOCK,
    (r"transformer\.wtes\.(\d+)\.weight", r"input_embeds_layers.\1.weight"),
    (r"lm_heads\.(\d+)\.weight", r"lm_heads.\1.weight"),
]
DROPPED = r"transformer\.h\.\d+\.attn\.bias"
"""Causal masks, which are computed now."""

_COMPILED = "_orig_mod."
"""Prefix that `torch.compile` puts before every name."""

CODEC: Table = [
    (r"(encoder|decoder)\.model\.(\d+)\.conv\.conv\.(.+)", r"\1.layers.\2.conv.\3"),
    (r"(encoder|decoder)\.model\.(\d+)\.convtr\.convtr\.(.+)", r"\1.layers.\2.conv.\3"),
    (r"(encoder|decoder)\.model\.(\d+)\.block\.(\d+)\.conv\.conv\.(.+)", r"\1.layers.\2.block.\3.conv.\4"),
    (r"(encoder|decoder)\.model\.(\d+)\.shortcut\.conv\.conv\.(.+)", r"\1.layers.\2.shortcut.conv.\3"),
    (r"(encoder|decoder)\.model\.(\d+)\.lstm\.(.+)", r"\1.layers.\2.lstm.\3"),
    (r"quantizer\.vq\.layers\.(\d+)\._codebook\.(.+)", r"quantizer.layers.\1.codebook.\2"),
]
WEIGHT_NORM = [(".weight_g", ".parametrizations.weight.original0"), (".weight_v", ".parametrizations.weight.original1")]
"""Weight normalization: the old names and those of PyTorch's parametrization."""


def rename(source: Mapping[str, Any], table: Table, dropped: str = r"$^") -> dict[str, Any]:
    """Every entry under its new name.

    Raises:
        ValueError: names that are neither in the table nor dropped, all listed.
    """
    renamed, unknown = {}, []
    for name, value in source.items():
        plain = name.removeprefix(_COMPILED)
        if re.fullmatch(dropped, plain):
            continue
        targets = [re.sub(pattern, target, plain) for pattern, target in table if re.fullmatch(pattern, plain)]
        if len(targets) != 1:
            unknown.append(name)
            continue
        renamed[targets[0]] = value
    if unknown:
        raise ValueError(f"source names that are not in the table: {', '.join(sorted(unknown))}")
    return renamed


def require_total(found: Iterable[str], wanted: Iterable[str], what: str) -> None:
    """Checks that the targets are filled, no more and no less.

    Raises:
        ValueError: the names that are missing or too many.
    """
    found, wanted = set(found), set(wanted)
    problems = []
    if wanted - found:
        problems.append(f"not filled: {', '.join(sorted(wanted - found))}")
    if found - wanted:
        problems.append(f"not in the model: {', '.join(sorted(found - wanted))}")
    if problems:
        raise ValueError(f"{what}: {'; '.join(problems)}")


def reverse(table: Table, names: Iterable[str], candidates: Iterable[str]) -> dict[str, str]:
    """For each of `names` (new) the old name among `candidates` that the table turns into it.

    Raises:
        ValueError: a name without an old one.
    """
    old = {new: candidate for candidate in candidates for new in rename({candidate: None}, table, DROPPED)}
    missing = sorted(set(names) - set(old))
    if missing:
        raise ValueError(f"names that the table does not produce: {', '.join(missing)}")
    return {name: old[name] for name in names}
