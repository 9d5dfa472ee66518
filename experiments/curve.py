from pathlib import Path
def draw(run, path: Path) -> Path:
    return path
