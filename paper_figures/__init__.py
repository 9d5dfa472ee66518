"""Figures of papers, drawn from run folders and from the claims' stored results, and nothing else."""
