"""How vLLM is found, and what it is started with. Nothing is started here."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from app.engine import vllm
from app.engine.models import converted_folder, find_gguf
from app.engine.serve import serve_engine
from app.exceptions import ConfigurationError

SMOL = vllm.VllmModel("/models/smol", "Smol", 4096)


def arguments(model: vllm.VllmModel = SMOL, **options: object) -> list[str]:
    given: dict[str, object] = {"host": "127.0.0.1", "port": 9000, "cpu": True, **options}
    return vllm.vllm_arguments(model, **given)  # type: ignore[arg-type]


def value(of: str, given: list[str]) -> str:
    return given[given.index(of) + 1]


def test_what_every_vllm_is_started_with() -> None:
    given = arguments(cpu=False)
    assert given[:3] == ["vllm.entrypoints.cli.main", "serve", "/models/smol"]
    assert value("--served-model-name", given) == "Smol"
    assert value("--host", given) == "127.0.0.1"
    assert value("--port", given) == "9000"
    assert value("--max-model-len", given) == "4096"
    assert value("--scheduling-policy", given) == "priority"
    assert value("--tool-call-parser", given) == "hermes"
    assert {"--enable-prefix-caching", "--enable-prompt-tokens-details"} <= set(given)


def test_a_build_for_a_cpu_has_no_command() -> None:
    assert arguments()[:3] == ["vllm.entrypoints.openai.api_server", "--model", "/models/smol"]


def test_only_a_cpu_gets_float32_and_eager() -> None:
    assert value("--dtype", arguments()) == "float32"
    assert "--enforce-eager" in arguments()
    assert not {"--dtype", "--enforce-eager"} & set(arguments(cpu=False))


def test_options_beat_what_is_known_of_the_model() -> None:
    given = arguments(alias="mine", ctx=2048)
    assert value("--served-model-name", given) == "mine"
    assert value("--max-model-len", given) == "2048"
    assert "--max-model-len" not in arguments(vllm.VllmModel("org/model", "org/model"))


def test_extra_arguments_come_last() -> None:
    assert arguments(extra=["--tool-call-parser", "llama3_json"])[-2:] == [
        "--tool-call-parser",
        "llama3_json",
    ]


def test_environment_of_a_gpu_says_nothing_of_a_cpu() -> None:
    model = vllm.VllmModel("org/model", "org/model")
    assert vllm.vllm_environment(model, cpu=False, given={"A": "b"}) == {
        "PYTHONSAFEPATH": "1",
        "A": "b",
        "VLLM_NO_USAGE_STATS": "1",
    }


def test_environment_of_a_cpu_and_a_local_folder(tmp_path: Path) -> None:
    model = vllm.VllmModel(str(tmp_path), "Smol")
    given = {"VLLM_CPU_KVCACHE_SPACE": "8"}
    chosen = vllm.vllm_environment(model, cpu=True, given=given, threads=1)
    assert chosen["VLLM_CPU_KVCACHE_SPACE"] == "8"  # the user's word stands
    assert chosen["VLLM_TARGET_DEVICE"] == "cpu"
    assert chosen["TORCH_COMPILE_DISABLE"] == "1"
    assert chosen["HF_HUB_OFFLINE"] == "1"
    assert "," not in chosen["VLLM_CPU_OMP_THREADS_BIND"]


def test_named_python_without_vllm_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="has no vLLM"):
        vllm.find_python(Path(sys.executable))
    with pytest.raises(ConfigurationError, match="no Python that can be run"):
        vllm.find_python(Path("/no/such/python"))


def test_python_is_named_by_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(vllm.PYTHON_VARIABLE, "/no/such/python")
    with pytest.raises(ConfigurationError, match="/no/such/python"):
        vllm.find_python()


@pytest.fixture
def gguf(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.gguf"
    path.write_bytes(b"GGUF and some weights")
    return path


def test_a_model_is_a_folder_a_name_or_a_converted_file(tmp_path: Path, gguf: Path) -> None:
    python = vllm.VllmPython(Path("/no/such/python"), cpu=True)  # must not be needed
    folder = vllm.prepare_model(str(tmp_path), data_dir=tmp_path, python=python)
    assert folder == vllm.VllmModel(str(tmp_path), tmp_path.name)
    named = vllm.prepare_model("org/model", data_dir=tmp_path, python=python)
    assert named == vllm.VllmModel("org/model", "org/model")
    cached = converted_folder(find_gguf(str(gguf)), tmp_path)
    cached.mkdir(parents=True)
    converted = vllm.prepare_model(str(gguf), data_dir=tmp_path, python=python)
    assert converted == vllm.VllmModel(str(cached), "tiny")


def test_conversion_is_kept_by_content(tmp_path: Path, gguf: Path) -> None:
    before = converted_folder(find_gguf(str(gguf)), tmp_path)
    gguf.write_bytes(b"GGUF and other weights")
    assert converted_folder(find_gguf(str(gguf)), tmp_path) != before


def test_conversion_that_fails_leaves_nothing(tmp_path: Path, gguf: Path) -> None:
    python = vllm.VllmPython(Path(sys.executable), cpu=True)
    with pytest.raises(ConfigurationError, match="can't be converted"):
        vllm.prepare_model(str(gguf), data_dir=tmp_path, python=python)
    assert list((tmp_path / "models").iterdir()) == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"backend": "ollama"}, "no engine 'ollama'"),
        ({"backend": "llama", "extra_args": ["--dtype", "half"]}, "no option --dtype"),
        ({"backend": "vllm", "parallel": 4}, "--max-num-seqs"),
        ({"backend": "llama", "model": "/no/such.gguf"}, "does not exist"),
    ],
)
def test_what_can_not_be_served_is_said_in_one_sentence(
    options: dict[str, object], message: str
) -> None:
    with pytest.raises(ConfigurationError, match=message) as raised:
        serve_engine(**options)  # type: ignore[arg-type]
    assert "\n" not in raised.value.message
