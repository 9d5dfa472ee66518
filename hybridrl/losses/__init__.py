"""Losses by topic: pure functions of arrays that know no agent."""
