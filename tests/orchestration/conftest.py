"""One tiny project that ran to its end, copied for each test that changes it."""

from __future__ import annotations

import shutil

import pytest

from tests.orchestration.mutated_project import MutatedProject, create_mutated_project
from tests.project import Project, create_project


@pytest.fixture(scope="session")
def finished_project(tmp_path_factory, tiny_llama) -> Project:
    """A project after `press run tiny`; tests that change something take `project`."""
    project = create_project(tmp_path_factory.mktemp("finished") / "project", tiny_llama)
    outcomes = project.run()
    assert set(outcomes.values()) == {"computed"}
    return project


@pytest.fixture
def project(finished_project, tmp_path) -> Project:
    """A copy of the finished project."""
    shutil.copytree(finished_project.root, tmp_path / "project", symlinks=True)
    return Project(tmp_path / "project")


@pytest.fixture(scope="session")
def mutated_project(finished_project, tiny_llama, tmp_path_factory) -> MutatedProject:
    """An experiment for each row of the mutation table, after its mutation; to be looked at only."""
    return create_mutated_project(finished_project, tiny_llama, tmp_path_factory.mktemp("mutated") / "project")
