"""Work in pieces gives the same results in any number of processes, from any kind of script."""

import subprocess
import sys

from envs.shards import run_shards

SCRIPT = """
from envs.shards import run_shards
print("script")
print(list(run_shards(divmod, [(7, 2), (9, 4)], title="t", processes=2, progress=lambda done, total: None)))
"""


def test_results_come_in_order_whatever_the_number_of_processes():
    shards = [(number, 3) for number in range(5)]
    quiet = {"title": "t", "progress": lambda done, total: None}
    assert list(run_shards(divmod, shards, processes=1, **quiet)) == [divmod(*shard) for shard in shards]


def test_a_script_without_a_main_guard_is_not_run_again_by_its_workers(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.splitlines() == ["script", "[(3, 1), (2, 1)]"]
