"""Mixes in, mixture-of-experts language models out: the published OLMoE, its losses, its training loop.

    config → model (routing inside) → losses → optimizer step → checkpoint → export

`model.py` and `routing.py` are the mathematics, `losses.py` what is minimised, `hf.py` the only file that knows the names
of `transformers`. Of the pipeline this half imports how mixes, shards and YAML are read, how files
are written and errors shown, and the repetition rule; nothing that builds.
"""
