"""A training process that is killed at random moments; `make torture` kills it 200 times."""

from tests.torture import torture


def test_a_process_killed_at_random_moments_resumes_bitwise(tmp_path):
    counts = torture(20, tmp_path)
    assert counts["kills"] == 20 and counts["after a checkpoint"] >= 1
    assert counts["runs that finished"] == counts["runs equal to the uninterrupted one"] > 0
