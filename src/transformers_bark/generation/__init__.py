"""Generation: the stages `semantic`, `coarse` and `fine`, one plain function each; `speech` puts them in order.

`sub_models` is what the sub-models' own `generate` methods do; `options`, `refusals`, `processors` and `sampling` say how a token
is chosen; `engine` is the contract of what runs the transformers.

Models are arguments; nothing here imports `modeling_bark`. Rows of a batch travel as lists of tensors of their own length,
so no padding ever leaves a stage.
"""
