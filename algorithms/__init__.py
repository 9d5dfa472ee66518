"""Published agents, one module each: its settings, then the agent."""

from algorithms.bc import BCAgent, BCConfig
from algorithms.calql import CalQLAgent, CalQLConfig
from algorithms.clone_ensemble import ClonesConfig
from algorithms.cql import CQLAgent, CQLConfig, PenaltyConfig
from algorithms.crl import CRLAgent, CRLConfig
from algorithms.darc import DARCAgent, DARCConfig
from algorithms.dynamics import DiscriminatorConfig
from algorithms.fql import FQLAgent, FQLConfig
from algorithms.gcbc import GCBCAgent, GCBCConfig
from algorithms.gciql import GCIQLAgent, GCIQLConfig
from algorithms.gcivl import GCIVLAgent, GCIVLConfig
from algorithms.h2o import H2OAgent, H2OChoices, H2OConfig
from algorithms.hiql import HIQLAgent, HIQLConfig
from algorithms.hnpg import HNPGAgent, HNPGConfig
from algorithms.hyq import HyQAgent, HyQConfig
from algorithms.iql import IQLAgent, IQLConfig
from algorithms.moorl import MOORLAgent, MOORLConfig
from algorithms.offline_ppo import ImprovementConfig
from algorithms.offline_values import OfflineValuesConfig
from algorithms.ota import OTAAgent, OTAConfig
from algorithms.ppo import PPOAgent, PPOConfig, PPORun
from algorithms.qrl import QRLAgent, QRLConfig
from algorithms.rebrac import ReBRACAgent, ReBRACConfig
from algorithms.rlpd import RLPDAgent, RLPDConfig
from algorithms.rnd import RNDAgent, RNDConfig
from algorithms.sac import SACAgent, SACConfig
from algorithms.td3bc import TD3BCAgent, TD3BCConfig
from algorithms.transition_model import TransitionModelConfig
from algorithms.uni_o4 import OnlineConfig, StagesConfig, UniO4Agent, UniO4Config, UniO4Stage
from algorithms.wsrl import WSRLAgent, WSRLConfig

# What `algo=` accepts. RND is not among them: it ignores the task's reward, and serves `experiments.collect`.
AGENTS = {
    "sac": SACAgent,
    "cql": CQLAgent,
    "calql": CalQLAgent,
    "rlpd": RLPDAgent,
    "wsrl": WSRLAgent,
    "h2o": H2OAgent,
    "darc": DARCAgent,
    "darcplus": DARCAgent,
    "ppo": PPOAgent,
    "bc": BCAgent,
    "td3bc": TD3BCAgent,
    "iql": IQLAgent,
    "rebrac": ReBRACAgent,
    "fql": FQLAgent,
    "moorl": MOORLAgent,
    "mixedsac": MOORLAgent,
    "lookaheadsac": MOORLAgent,
    "unio4": UniO4Agent,
    "bppo": UniO4Agent,
    "gcbc": GCBCAgent,
    "gcivl": GCIVLAgent,
    "gciql": GCIQLAgent,
    "qrl": QRLAgent,
    "crl": CRLAgent,
    "hnpg": HNPGAgent,
    "trpo": HNPGAgent,
    "hyq": HyQAgent,
    "hiql": HIQLAgent,
    "ota": OTAAgent,
}

__all__ = [
    "AGENTS",
    "BCAgent",
    "BCConfig",
    "CQLAgent",
    "CQLConfig",
    "CRLAgent",
    "CRLConfig",
    "CalQLAgent",
    "CalQLConfig",
    "ClonesConfig",
    "DARCAgent",
    "DARCConfig",
    "DiscriminatorConfig",
    "FQLAgent",
    "FQLConfig",
    "GCBCAgent",
    "GCBCConfig",
    "GCIQLAgent",
    "GCIQLConfig",
    "GCIVLAgent",
    "GCIVLConfig",
    "H2OAgent",
    "H2OChoices",
    "H2OConfig",
    "HIQLAgent",
    "HIQLConfig",
    "HNPGAgent",
    "HNPGConfig",
    "HyQAgent",
    "HyQConfig",
    "IQLAgent",
    "IQLConfig",
    "ImprovementConfig",
    "MOORLAgent",
    "MOORLConfig",
    "OTAAgent",
    "OTAConfig",
    "OfflineValuesConfig",
    "OnlineConfig",
    "PPOAgent",
    "PPOConfig",
    "PPORun",
    "PenaltyConfig",
    "QRLAgent",
    "QRLConfig",
    "RLPDAgent",
    "RLPDConfig",
    "RNDAgent",
    "RNDConfig",
    "ReBRACAgent",
    "ReBRACConfig",
    "SACAgent",
    "SACConfig",
    "StagesConfig",
    "TD3BCAgent",
    "TD3BCConfig",
    "TransitionModelConfig",
    "UniO4Agent",
    "UniO4Config",
    "UniO4Stage",
    "WSRLAgent",
    "WSRLConfig",
]
