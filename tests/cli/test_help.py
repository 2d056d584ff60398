"""Help, version and usage errors of the installed console script."""

from __future__ import annotations

from importlib import metadata
from pathlib import Path

import pytest

from tests.cli.command import Result, Verb, Words, run, run_script, verbs

_VERBS = verbs()
_GROUPS = sorted({verb.words[:-1] for verb in _VERBS})
#: Without a verb it lists, as its help says.
_LISTS = ("images",)


@pytest.mark.parametrize("verb", _VERBS, ids=lambda verb: " ".join(verb.words))
def test_help_of_a_verb_describes_it_and_all_its_parameters(verb: Verb, tmp_path: Path) -> None:
    result = run(*verb.words, "--help", data_dir=tmp_path / "data")
    assert (result.code, result.error) == (0, "")
    assert verb.summary.endswith(".")
    assert verb.summary[0].isupper()
    assert verb.summary in " ".join(result.output.split())
    for parameter in verb.parameters:
        assert parameter.help, f"{parameter.name} has no help"
        assert (parameter.metavar or max(parameter.opts, key=len)) in result.output


@pytest.mark.parametrize("words", _GROUPS, ids=lambda words: " ".join(words) or "cumulet")
def test_help_of_a_group_lists_its_verbs(words: Words, tmp_path: Path) -> None:
    result = run(*words, "--help", data_dir=tmp_path / "data")
    assert (result.code, result.error) == (0, "")
    for verb in _VERBS:
        if verb.words[: len(words)] == words:
            assert verb.words[len(words)] in result.output


def test_version(tmp_path: Path) -> None:
    assert run_script("--version", data_dir=tmp_path) == Result(0, f"{metadata.version('cumulet')}\n", "")


@pytest.mark.parametrize("words", sorted(set(_GROUPS) - {_LISTS}), ids=lambda words: " ".join(words) or "cumulet")
def test_a_group_without_a_verb_shows_its_help(words: Words, tmp_path: Path) -> None:
    result = run(*words, data_dir=tmp_path)
    assert "Usage: " in result.output + result.error
    assert "Traceback" not in result.error


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (("statsu",), "statsu"),
        (("--verison",), "--verison"),
        (("registry", "lst"), "lst"),
        (("up", "--detatch"), "--detatch"),
        (("up", "now"), "now"),
        (("registry", "list", "--output", "yaml"), "--output"),
        (("registry", "create", "name"), "--resource-group"),
        (("registry", "token", "name", "token"), "--allow, --scope-map"),
        (("registry", "token", "name", "token", "--allow", "app3"), "--allow"),
        (("sp", "create"), "NAME"),
        (("sp", "create", "name", "--role", "AcrPull"), "--role, --scope"),
        (("serve", "kubelet"), "kubelet"),
        (("scheduler", "--port", "65536"), "--port"),
        (("scheduler", "--kubeconfig", "missing.yaml"), "missing.yaml"),
        (("up", "--kubeconfig", "missing.yaml"), "missing.yaml"),
        (("up", "--port", "kube"), "--port"),
        (("up", "--port", "kube=65536"), "--port"),
        (("up", "--port", "kubelet=1"), "kubelet"),
        (("up", "--allow-egress", "registry.example"), "--allow-egress"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else value,
)
def test_a_usage_error_names_the_word_and_writes_nothing(words: Words, named: str, tmp_path: Path) -> None:
    assert named in run(*words, data_dir=tmp_path / "data").is_usage_error()
    assert not (tmp_path / "data").exists()


def test_the_script_as_a_process_of_its_own(tmp_path: Path) -> None:
    for words in (("up", "--help"), ("statsu",)):
        assert run_script(*words, data_dir=tmp_path) == run(*words, data_dir=tmp_path)
