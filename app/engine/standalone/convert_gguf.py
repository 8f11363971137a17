"""A script for vLLM's interpreter: GGUF file in, folder that vLLM loads out (float32).

    python convert_gguf.py FILE.gguf FOLDER

The folder appears whole or not at all. Nothing of this project is imported here.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import time
from pathlib import Path

_STALE = 3600.0


def main(source: Path, target: Path) -> None:
    if target.is_dir():
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    _remove_abandoned(target)
    with tempfile.TemporaryDirectory(prefix=f".{target.name}.", dir=target.parent) as folder:
        partial = Path(folder) / "model"
        _convert(source, partial)
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


def _convert(source: Path, folder: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    place = {"pretrained_model_name_or_path": str(source.parent), "gguf_file": source.name}
    model = AutoModelForCausalLM.from_pretrained(
        **place, dtype=torch.float32, quantization_config=GgufConfig(dequantize=True)
    )
    # The weights are plain now; a trace of their former format would mislead the loader.
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    model.hf_quantizer = None
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(**place).save_pretrained(folder)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
