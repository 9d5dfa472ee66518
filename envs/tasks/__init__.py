"""The tasks, one module per family of benchmarks; each offers `TASKS`, from names to functions that make the record."""
