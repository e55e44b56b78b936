"""What training minimises. One file an objective."""

from modicum.base.errors import SpecError
from modicum.base.registry import Registry
from modicum.base.spec import Choice
from modicum.base.training import Training
from modicum.base.types import Task
from modicum.engine.objectives.base import Objective

OBJECTIVES = Registry(
    "objective",
    "modicum.objectives",
    {
        "cross-entropy": "modicum.engine.objectives.cross_entropy:CrossEntropy",
        "contrastive": "modicum.engine.objectives.contrastive:Contrastive",
        "consistency": "modicum.engine.objectives.consistency:Consistency",
        "squared-error": "modicum.engine.objectives.squared_error:SquaredError",
    },
)


def objective_of(training: Training, task: Task) -> Objective:
    """The objective that a training names, or the usual one of its task.

    Raises:
        SpecError: there is none of that name, its options are wrong, or it is not for this task.
    """
    usual = "cross-entropy" if task == "classification" else "squared-error"
    choice = training.objective or Choice(name=usual)
    made: Objective = OBJECTIVES.create(choice.name, **choice.options)
    if task not in made.tasks:
        raise SpecError(f"objective {choice.name!r} works for {' and '.join(sorted(made.tasks))}, not for {task}")
    return made
