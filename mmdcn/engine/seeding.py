"""Random numbers that do not depend on where a run was interrupted."""

from mmengine.hooks import Hook
from mmengine.runner import Runner, set_random_seed

from mmdcn.registry import HOOKS


@HOOKS.register_module()
class EpochSeedHook(Hook):
    """Seed the random numbers anew at the start of each epoch.

    A run that was interrupted and goes on from the checkpoint of an epoch then ends with the same
    weights as one that nothing has interrupted, if its training data loader has
    ``persistent_workers=False``: the workers of an epoch then begin anew, too.
    """

    def before_train_epoch(self, runner: Runner) -> None:
        set_random_seed(runner.seed + runner.epoch)
