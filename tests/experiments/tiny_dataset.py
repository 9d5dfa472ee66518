"""A dataset of a dozen rows with a maker that can be told to fail, and `experiments.data` in this process."""

import numpy as np

from experiments.data import main
from hybridrl.data_folder import data_root

ID = "tiny-maze-v0"


def tiny_arrays(seed=0):
    """Three episodes of 3 transitions; rewards of the rows that count are 0..2, 4..6, 8..10: returns 3, 15, 27."""
    generator = np.random.default_rng(seed)
    return {
        "observations": generator.standard_normal((12, 2)).astype(np.float32),
        "actions": generator.uniform(-1, 1, (12, 2)).astype(np.float32),
        "terminals": np.arange(12) % 4 == 3,
        "rewards": np.arange(12, dtype=np.float32),
    }


class Maker:
    """A generator that can be told what to make, to fail, or to be interrupted half-way."""

    def __init__(self):
        self.calls, self.changes, self.error = 0, {}, None

    def __call__(self, folder):
        self.calls += 1
        (folder / f"{ID}.npz").write_bytes(b"half")
        if self.error is not None:
            raise self.error
        np.savez(folder / f"{ID}.npz", **(tiny_arrays() | self.changes))


def folder():
    return data_root() / "ogbench" / ID


def run(capsys, *arguments):
    """Exit code, output and error output; there is never a traceback."""
    code = main([str(argument) for argument in arguments])
    out, err = capsys.readouterr()
    assert "Traceback" not in err
    return code, out, err
