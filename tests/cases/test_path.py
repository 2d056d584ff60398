"""A pod that ends, one that is read, and one whose image is absent."""

from __future__ import annotations

from tests.cases.path import LOGIN_SERVER, ThePath, pod


def test_a_pod_runs_once_and_its_output_is_read(path: ThePath) -> None:
    path.run("once", "echo", "it ran")
    assert path.output("once") == "it ran\n"


def test_an_image_that_is_absent_is_named(path: ThePath) -> None:
    path.apply(pod("absent", [{"name": "main", "image": f"{LOGIN_SERVER}/absent:1"}]))
    assert f"{LOGIN_SERVER}/absent:1" in path.events("absent", "Failed")
