"""Settings and phases as the presets give them, for the tests that compare them with published numbers."""

import dataclasses
from types import SimpleNamespace

from experiments import presets
from experiments.config import compose
from hybridrl.task import Task


def task_of(family):
    return Task(name=f"a-{family}", family=family, env_id="", horizon=300, success_key="success")


def phases(*overrides):
    return compose(["scale=paper", *overrides]).phases()


def phases_on(task, algo, scale="paper", **schedule):
    found = presets.module(algo).preset(task, scale)
    config = SimpleNamespace(algo=algo, agent=found.agent, schedule=dataclasses.replace(found.schedule, **schedule))
    return presets.module(algo).phases(config, task)
