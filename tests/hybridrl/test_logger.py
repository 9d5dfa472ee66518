import pytest

from hybridrl.logger import RunLogger, read_lines

EVALUATION = {"step": 2, "summary": {"score": 1.5}, "panel": {"q": 0.5}, "episodes": {"returns": [1.0, 2.0]}}


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "run"


def test_everything_logged_can_be_read_back(folder):
    logger = RunLogger(folder)
    logger.metrics(1, "offline", {"critic/loss": 0.5})
    logger.evaluation(EVALUATION)
    logger.timing(1, "offline", {"per_second": 3.0})
    logger.close()
    assert read_lines(folder / "metrics.jsonl") == [{"step": 1, "phase": "offline", "critic/loss": 0.5}]
    assert read_lines(folder / "evaluations.jsonl") == [EVALUATION]
    assert read_lines(folder / "timing.jsonl") == [{"step": 1, "phase": "offline", "per_second": 3.0}]
    assert list((folder / "tensorboard").iterdir())


def test_lines_are_on_disk_at_once(folder):
    logger = RunLogger(folder)
    logger.metrics(1, "offline", {"critic/loss": 0.5})
    assert len(read_lines(folder / "metrics.jsonl")) == 1
    logger.close()


def test_resuming_cuts_every_file_back_to_its_checkpoint(folder):
    logger = RunLogger(folder)
    logger.metrics(1, "offline", {"critic/loss": 0.5})
    positions = logger.positions()
    assert positions["metrics.jsonl"] == (folder / "metrics.jsonl").stat().st_size > 0
    assert positions["evaluations.jsonl"] == 0
    logger.metrics(2, "offline", {"critic/loss": 99.0})
    logger.evaluation(EVALUATION)
    logger.close()
    resumed = RunLogger(folder, positions, step=1)
    resumed.metrics(2, "offline", {"critic/loss": 0.25})
    resumed.close()
    assert [line["critic/loss"] for line in read_lines(folder / "metrics.jsonl")] == [0.5, 0.25]
    assert read_lines(folder / "evaluations.jsonl") == []


def test_a_line_torn_by_a_crash_is_cut_away(folder):
    logger = RunLogger(folder)
    logger.metrics(1, "offline", {"x": 1.0})
    positions = logger.positions()
    logger.close()
    with open(folder / "metrics.jsonl", "a", encoding="utf-8") as file:
        file.write('{"step": 2, "pha')
    RunLogger(folder, positions, step=1).close()
    assert len(read_lines(folder / "metrics.jsonl")) == 1


def test_a_run_without_a_checkpoint_starts_its_logs_afresh(folder):
    for _ in range(2):
        logger = RunLogger(folder)
        logger.metrics(1, "offline", {"x": 1.0})
        logger.close()
    assert len(read_lines(folder / "metrics.jsonl")) == 1
