"""Reports of scripted runs, the comparison of runs, and the command line."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from app.exceptions import ConfigurationError
from benchmarks import cli
from benchmarks.comparison import compare_runs
from benchmarks.report.document import Bullets, Heading, Paragraph, Table, to_html, to_markdown
from benchmarks.report.pages import write_report
from benchmarks.report.results import read_run
from benchmarks.report.summary import rule_uses, summarise
from tests.benchmarks.scripted import ScriptedBackend, expected
from tests.benchmarks.test_runner import ALL_ARMS, go


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of every arm over 18 questions, made once."""
    import asyncio

    folder = tmp_path_factory.mktemp("report") / "run"
    asyncio.run(go(folder, ScriptedBackend(), concurrency=2, seeds=2))
    return folder


def test_a_report_has_the_known_figures(finished: Path) -> None:
    summary = write_report(finished)
    for arm in summary.arms:
        assert arm.accuracy.mean == pytest.approx(expected(arm.name, list(range(18)), 2))
        assert arm.complete
        assert arm.repeats == 2
    calls = {arm.name: arm.calls for arm in summary.arms}
    assert calls["zero-shot"] == 1
    assert calls["sc@5"] == 5
    assert calls["empty-bank"] == 6
    assert calls["paper"] == 7
    text = (finished / "report.md").read_text()
    assert "paper does better than sc@5" in text.splitlines()[2]
    assert "steps of 2 questions" in text
    assert "Not compute-matched: paper makes 7.0 calls" in text
    assert "| paper - sc@5 |" in text
    for name in ("accuracy.png", "stream.png", "cost.png", "rules.png"):
        assert (finished / name).read_bytes().startswith(b"\x89PNG")
        assert f"({name})" in text


def test_differences_are_named_once_and_against_every_plainer_arm(finished: Path) -> None:
    summary = summarise(read_run(finished))
    pairs = [(d.arm, d.baseline) for d in summary.differences]
    assert len(set(map(frozenset, pairs))) == len(pairs)
    plainer = {"random-rules", "sc@5", "empty-bank", "zero-shot"}
    assert {bar for arm, bar in pairs if arm == "paper"} == plainer


def test_the_html_page_needs_no_other_file(finished: Path) -> None:
    write_report(finished)
    page = (finished / "report.html").read_text()
    assert page.count('src="data:image/png;base64,') == 4
    assert not re.search(r'(?:src|href)="(?!data:)', page)
    assert "<script" not in page


def test_the_configuration_is_told_in_full_but_no_folder_of_this_machine(finished: Path) -> None:
    write_report(finished)
    text = (finished / "report.md").read_text()
    for name in ("prompts_sha256", "student_temperature", "math-verify", '"python"', '"seeds": 2'):
        assert name in text
    assert str(finished.parent) not in text


def test_a_report_made_twice_is_the_same_twice(finished: Path) -> None:
    names = ("report.md", "report.html", "accuracy.png", "stream.png")
    write_report(finished)
    first = [(finished / name).read_bytes() for name in names]
    write_report(finished)
    assert [(finished / name).read_bytes() for name in names] == first


def test_questions_can_be_left_out_of_a_report(finished: Path) -> None:
    write_report(finished, with_questions=False)
    assert "red and" not in (finished / "report.md").read_text()
    write_report(finished)
    assert "red and" in (finished / "report.md").read_text()


def test_examples_are_answers_that_a_rule_went_with(finished: Path) -> None:
    reference, uses = rule_uses(read_run(finished), "paper")
    assert reference == "empty-bank"
    changed = [change for use in uses for change in use.better]
    assert changed
    assert all(change.after == change.gold != change.before for change in changed)
    assert not any(use.worse for use in uses)


@pytest.mark.parametrize(
    ("arms", "word"),
    [("sc@5,empty-bank,paper", "better"), ("paper,sc@5", "better"), ("zero-shot", "No arm")],
)
async def test_the_verdict_comes_first(tmp_path: Path, arms: str, word: str) -> None:
    await go(tmp_path / "run", ScriptedBackend(), arms=arms, count=18)
    assert word in write_report(tmp_path / "run").verdict


async def test_a_small_run_is_called_undecided(tmp_path: Path) -> None:
    await go(tmp_path / "run", ScriptedBackend(), arms="sc@5,paper", count=3)
    verdict = write_report(tmp_path / "run").verdict
    assert verdict.startswith("Undecided: paper is not shown to differ from sc@5")


async def test_an_unfinished_run_has_a_report_that_says_so(tmp_path: Path) -> None:
    from benchmarks.runner import RunStopped

    backend = ScriptedBackend()
    backend.fails_after = 100
    with pytest.raises(RunStopped):
        await go(tmp_path / "run", backend, arms="empty-bank,paper", count=18)
    summary = write_report(tmp_path / "run")
    assert any("is not finished" in warning for warning in summary.warnings)
    assert any("no self-consistency arm" in warning for warning in summary.warnings)


async def test_runs_of_the_same_questions_are_compared_by_question(tmp_path: Path) -> None:
    await go(tmp_path / "one", ScriptedBackend(), arms="zero-shot,sc@3", count=6)
    await go(tmp_path / "two", ScriptedBackend(), arms="zero-shot,paper", count=6)
    await go(tmp_path / "three", ScriptedBackend(), arms="zero-shot", count=7)
    found = compare_runs([tmp_path / "one", tmp_path / "two", tmp_path / "three"])
    assert len(found.lines) == 5
    (between,) = found.between
    assert (between.arm, between.comparison.difference.mean) == ("zero-shot", 0)
    assert len(found.not_comparable) == 2


def test_a_folder_without_a_run_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="holds no run"):
        write_report(tmp_path)
    with pytest.raises(ConfigurationError, match="at least two"):
        compare_runs([tmp_path])


HOSTILE = "<img src=x onerror=alert(1)> | *a* [b](c) $x$ `d`"


def test_what_a_model_wrote_is_never_markup(tmp_path: Path) -> None:
    blocks = [
        Heading("H"),
        Paragraph(HOSTILE),
        Bullets([HOSTILE]),
        Table(["a", "b"], [[HOSTILE, "1"]]),
    ]
    page = to_html(blocks, title="t", folder=tmp_path)
    assert "<img" not in page
    text = to_markdown(blocks)
    assert "<img" not in text.replace("\\<img", "")
    assert "\\| \\*a\\*" in text


class TestCommandLine:
    run = CliRunner()

    def test_tasks_lists_tasks_and_arms(self) -> None:
        found = self.run.invoke(cli.app, ["tasks"], env={"COLUMNS": "200"})
        assert found.exit_code == 0
        for word in ("gsm8k", "mixed", "sc@K", "gated"):
            assert word in found.stdout

    def test_report_and_compare(self, finished: Path) -> None:
        found = self.run.invoke(cli.app, ["report", str(finished)])
        assert found.exit_code == 0
        assert "paper does better than sc@5" in found.stdout
        found = self.run.invoke(
            cli.app, ["compare", str(finished), str(finished)], env={"COLUMNS": "200"}
        )
        assert found.exit_code == 0
        assert "paper:" in found.stdout

    def test_run_reaches_the_upstream_and_writes_a_report(
        self, tmp_path: Path, upstream: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from tests.replies import Reply

        monkeypatch.chdir(tmp_path)
        upstream.default = Reply("It is \\boxed{89}.")
        out = tmp_path / "run"
        arguments = ["run", "--arms", "zero-shot,sc@2", "--limit", "2", "--out", str(out)]
        found = self.run.invoke(cli.app, [*arguments, "--upstream", upstream.base_url])
        assert found.exit_code == 0, found.output
        results = read_run(out)
        scores = {row.id: row.score for row in results.rows("zero-shot")}
        assert scores == {"mixed-01": 1.0, "mixed-02": 0.0}
        assert len(upstream.chats) == 2 + 4
        assert results.config["model"] == "scripted-model"
        assert (out / "report.html").exists()

    def test_an_upstream_that_is_not_there_is_one_sentence(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        found = self.run.invoke(
            cli.app,
            ["run", "--limit", "1", "--out", "run", "--upstream", "http://127.0.0.1:9/v1"],
        )
        assert isinstance(found.exception, ConfigurationError)
        assert "does not answer" in str(found.exception)
        assert not (tmp_path / "run").exists()


def test_all_arms_are_tested() -> None:
    from benchmarks.arms import ARMS
    from benchmarks.arms.experienced import EXPERIENCED_ARMS, WITHIN

    assert {re.sub(r"\d", "K", arm) for arm in ALL_ARMS.split(",")} == {
        name
        for name in ARMS
        if not name.startswith(("gated", "http", "knn", "self-icl", "neighbour"))
        # Those have tests of their own.
        and name.partition("@")[0] not in {*EXPERIENCED_ARMS, *WITHIN}
    }
