"""Suites of benchmarks, and where their public definitions stand."""

import pytest

from lightning_bnf.evaluation.benchmarks.suites import SUITES, TASKS

pytestmark = pytest.mark.slow


def test_public_definitions_are_where_the_suite_says():
    from lm_eval.tasks import TaskManager

    own = TaskManager(include_path=str(TASKS), include_defaults=False)
    every = TaskManager(include_path=str(TASKS))
    for one in (*SUITES["zeroeval"], *SUITES["local"]):
        assert one.task in every.all_tasks
        assert (one.task in own.all_tasks) is not one.public
        assert (one.task in every.all_groups) is one.group
