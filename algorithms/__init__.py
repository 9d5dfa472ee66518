"""Published agents, one module each: its settings, then the agent."""

from algorithms.calql import CalQLAgent, CalQLConfig
from algorithms.cql import CQLAgent, CQLConfig, PenaltyConfig
from algorithms.rlpd import RLPDAgent, RLPDConfig
from algorithms.sac import SACAgent, SACConfig
from algorithms.wsrl import WSRLAgent, WSRLConfig

AGENTS = {
    "sac": SACAgent,
    "cql": CQLAgent,
    "calql": CalQLAgent,
    "rlpd": RLPDAgent,
    "wsrl": WSRLAgent,
}

__all__ = [
    "AGENTS",
    "CQLAgent",
    "CQLConfig",
    "CalQLAgent",
    "CalQLConfig",
    "PenaltyConfig",
    "RLPDAgent",
    "RLPDConfig",
    "SACAgent",
    "SACConfig",
    "WSRLAgent",
    "WSRLConfig",
]
