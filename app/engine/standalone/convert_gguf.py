"""A script for vLLM's interpreter: GGUF file in, folder that vLLM loads out.

    python convert_gguf.py FILE.gguf FOLDER [--dtype float32|bfloat16]
        [--without-weights | --tokenizer OTHER_FOLDER]

The folder appears whole or not at all. Without weights it has the configuration and the tokenizer,
which is what `--load-format dummy` needs; a later conversion takes the tokenizer from there, since
converting one takes a minute. Nothing of this project is imported here.
"""

from __future__ import annotations

import argparse
import os
import shutil
import tempfile
import time
from pathlib import Path

_STALE = 3600.0


def main(source: Path, target: Path, dtype: str, *, weights: bool, tokenizer: Path | None) -> None:
    if target.is_dir():
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    _remove_abandoned(target)
    with tempfile.TemporaryDirectory(prefix=f".{target.name}.", dir=target.parent) as folder:
        partial = Path(folder) / "model"
        _convert(source, partial, dtype, weights=weights)
        if tokenizer is None:
            _convert_tokenizer(source, partial)
        else:
            for file in (*tokenizer.glob("tokenizer*"), *tokenizer.glob("chat_template*")):
                shutil.copy(file, partial)
        try:
            os.rename(partial, target)
        except OSError:
            if not target.is_dir():  # else another process was first, with the same content
                raise


def _remove_abandoned(target: Path) -> None:
    """What a conversion that was killed left behind."""
    for partial in target.parent.glob(f".{target.name}.*"):
        if time.time() - partial.stat().st_mtime > _STALE:
            shutil.rmtree(partial, ignore_errors=True)


def _convert(source: Path, folder: Path, dtype: str, *, weights: bool) -> None:
    import torch
    from transformers import (
        MODEL_FOR_CAUSAL_LM_MAPPING,
        AutoConfig,
        AutoModelForCausalLM,
        GgufConfig,
    )

    place = _place(source)
    if weights:
        model = AutoModelForCausalLM.from_pretrained(
            **place, dtype=getattr(torch, dtype), quantization_config=GgufConfig(dequantize=True)
        )
        # The weights are plain now; a trace of their former format would mislead the loader.
        if hasattr(model.config, "quantization_config"):
            del model.config.quantization_config
        model.hf_quantizer = None
        model.save_pretrained(folder)
    else:
        config = AutoConfig.from_pretrained(**place)
        config.dtype = getattr(torch, dtype)
        config.architectures = [MODEL_FOR_CAUSAL_LM_MAPPING[type(config)].__name__]
        config.save_pretrained(folder)


def _convert_tokenizer(source: Path, folder: Path) -> None:
    from transformers import AutoTokenizer

    AutoTokenizer.from_pretrained(**_place(source)).save_pretrained(folder)


def _place(source: Path) -> dict[str, str]:
    return {"pretrained_model_name_or_path": str(source.parent), "gguf_file": source.name}


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("source", type=Path)
    parser.add_argument("target", type=Path)
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--without-weights", action="store_true")
    parser.add_argument("--tokenizer", type=Path)
    options = parser.parse_args()
    main(
        options.source,
        options.target,
        options.dtype,
        weights=not options.without_weights,
        tokenizer=options.tokenizer,
    )
