"""Which paths of the model server are passed through: an allow-list, and what never is.

A path that ends in `/*` stands for everything beneath it.
"""

from __future__ import annotations

import re

PASSED = (
    "/v1/completions",
    "/v1/responses",
    "/v1/responses/*",
    "/v1/messages",
    "/v1/messages/*",
    "/v1/embeddings",
    "/v1/rerank",
    "/v2/rerank",
    "/rerank",
    "/v1/score",
    "/score",
    "/v1/classify",
    "/classify",
    "/v1/pooling",
    "/pooling",
    "/v1/moderations",
    "/v1/audio/*",
    "/v1/images/*",
    "/v1/files",
    "/v1/files/*",
    "/v1/uploads",
    "/v1/uploads/*",
    "/v1/batches",
    "/v1/batches/*",
    "/tokenize",
    "/v1/tokenize",
    "/detokenize",
    "/v1/detokenize",
    "/version",
    "/health",
)
BENEATH = "/*"
_UNCOUNTED = re.compile(
    r"(/v1)?/(de)?tokenize|/v1/messages/count_tokens|/v1/(files|uploads|batches)(/.*)?"
    r"|/v1/messages/batches(/.*)?|/v1/responses/.+"
)
_MANAGING = re.compile(
    r"/(admin|console|metrics|api/(pull|push|create|copy|delete|blobs)"
    # vLLM
    r"|(un)?load_lora_adapter|sleep|wake_up|is_sleeping|pause|resume|is_paused"
    r"|(start|stop)_profile|reset_\w+|collective_rpc|\w*server_info|scale_elastic_ep"
    r"|is_scaling_elastic_ep|init_weights?\w*|update_weights?\w*"
    # SGLang
    r"|flush_cache|clear_\w+|(release|resume)_memory_occupation|abort_request|set_internal_state"
    r"|\w*weights?_(by_name|update_group|from_\w+)|(un)?load_lora\w*|configure_logging|freeze_gc"
    # llama.cpp
    r"|slots|props|lora-adapters|load|unload|shutdown"
    # OpenAI
    r"|fine_tuning|fine-tuning|organization|projects)(/|$)",
    re.IGNORECASE,
)
_ODD = re.compile(r"//|/\.{1,2}(/|$)|[\\%;?#\x00-\x20\x7f]")


def acceptable(path: str) -> bool:
    """Whether a decoded path may go to the model server at all: it manages nothing there, and says
    the same thing to whoever reads it."""
    return path.startswith("/") and not _ODD.search(path) and not _MANAGING.search(path)


def counted(method: str, path: str) -> bool:
    """Whether a request makes the model work now, so that its tokens are counted."""
    return method == "POST" and not _UNCOUNTED.fullmatch(path)
