"""The command line in processes of its own, and a run small enough for tests."""

import os
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]

# A run of a few seconds once compiled: 40 updates, 40 frozen steps, 60 trained ones; a checkpoint every 20.
TINY = (
    "task=probe/reach-v0",
    "schedule.offline_updates=40",
    "schedule.offline_batch_size=16",
    "schedule.warmup_steps=40",
    "schedule.online_steps=100",
    "schedule.online_batch_size=16",
    "schedule.offline_every=20",
    "schedule.dense_every=10",
    "schedule.dense_until=20",
    "schedule.every=30",
    "loop.log_every=10",
    "loop.checkpoint_every=20",
    "loop.eval_episodes=4",
    "loop.eval_envs=4",
    "loop.probe_rows=16",
)
_MAIN = """
import sys
from experiments.run import main
{prepare}
sys.exit(main(sys.argv[1:]))
"""
# A power cut at a given step of a given phase: nothing after this line runs.
_CUT = """
import os, signal
from hybridrl.training.loop import Loop
advance = Loop._advance
def cut(self, *args, **kwargs):
    advance(self, *args, **kwargs)
    if (self.progress.phase, self.progress.done) >= ({phase}, {done}):
        os.kill(os.getpid(), signal.{signal})
Loop._advance = cut
"""


class CommandLine:
    """Runs `python -m experiments.run` in a folder, with one compilation cache for all runs of the session."""

    def __init__(self, cache):
        self.env = os.environ | {
            "PYTHONPATH": str(REPOSITORY),
            "COLUMNS": "120",
            "JAX_COMPILATION_CACHE_DIR": str(cache),
            # Compiling is most of the work of a tiny run; what it computes is not what these tests are about.
            "XLA_FLAGS": "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true",
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
            "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "0",
        }

    def __call__(self, folder, *arguments):
        return self._run(["-m", "experiments.run", *arguments], folder)

    def cut(self, folder, *arguments, phase, done, signal="SIGKILL"):
        """Run until a step of a phase, then send the process a signal from within."""
        prepare = _CUT.format(phase=phase, done=done, signal=signal)
        return self._run(["-c", _MAIN.format(prepare=prepare), *arguments], folder)

    def _run(self, arguments, folder):
        command = [sys.executable, *arguments]
        return subprocess.run(command, cwd=folder, env=self.env, capture_output=True, text=True, timeout=300)
