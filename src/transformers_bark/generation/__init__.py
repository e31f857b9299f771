"""Generation, one plain function a stage: `semantic`, `coarse`, `fine`, joined in `facades.speech`.

Models are arguments; nothing here imports `modeling_bark`. Rows of a batch travel as lists of tensors of their own length,
so no padding ever leaves a stage.
"""
