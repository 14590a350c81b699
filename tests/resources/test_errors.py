"""Errors keep their class, message and exit code on the way to another process."""

from __future__ import annotations

import copy
import pickle

import pytest

from resources.errors import ConfigurationError, PressError, StageError, told_error

ERRORS = [
    PressError("all of it"),
    ConfigurationError("a.yaml: x", "1", "2", "Do that"),
    StageError("dataset", "it broke"),
]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_an_error_crosses_whole(error):
    for other in (pickle.loads(pickle.dumps(error)), copy.copy(error)):
        assert (type(other), str(other), other.__dict__) == (type(error), str(error), error.__dict__)
    told = told_error(error.to_json())
    assert (str(told), told.exit_code) == (str(error), error.exit_code)
