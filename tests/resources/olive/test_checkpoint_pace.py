"""How often checkpoints are saved."""

from __future__ import annotations

from resources.olive.passes.checkpoint_pace import CheckpointPace


def test_the_first_save_is_due_at_once():
    assert CheckpointPace().is_due(0.0)


def test_after_a_save_of_three_seconds_the_next_waits_until_saving_is_a_tenth_of_the_time():
    pace = CheckpointPace()
    pace.saved(100.0, 103.0)
    assert not pace.is_due(129.0)
    assert pace.is_due(130.0)


def test_saves_that_cost_nothing_are_never_left_out():
    pace = CheckpointPace()
    pace.saved(100.0, 100.9)
    assert pace.is_due(101.0)
