"""The settings of a run that belong to no algorithm. JAX is not imported here: typos are found before it loads."""

from __future__ import annotations

import dataclasses

from hybridrl.errors import ConfigError

SCALES = ("cpu", "paper")
PAIR = "+"  # `offline=iql online=sac` is the algorithm iql+sac

# Every algorithm on the command line, with what `--help` says of it. Each has a module of its name in `presets`.
ALGORITHMS = {
    "wsrl": "offline Cal-QL or CQL, warm-up, then plain SAC without offline data (Zhou et al. 2025, arXiv 2412.07762)",
    "calql": "calibrated Q-learning: offline, then online, half offline rows (Nakamoto et al. 2023, arXiv 2303.05479)",
    "cql": "conservative Q-learning: offline, then online, half offline rows (Kumar et al. 2020, arXiv 2006.04779)",
    "rlpd": "SAC from scratch, 20 updates a step, on half offline data (Ball et al. 2023, arXiv 2302.02948)",
    "iql": "implicit Q-learning: offline, then online with the same losses (Kostrikov et al. 2021, arXiv 2110.06169)",
    "rebrac": "TD3+BC with a penalty in the critic too; offline, then online (Tarasov et al. 2023, arXiv 2305.09836)",
    "fql": "flow Q-learning: a flow clones, a one-step policy climbs (Park et al. 2025, arXiv 2502.02538)",
    "td3bc": "TD3 with a cloning term in the actor's loss; offline (Fujimoto & Gu 2021, arXiv 2106.06860)",
    "bc": "behaviour cloning; offline (Pomerleau 1988)",
    "h2o": "SAC on a simulator, weighted by the dynamics gap to real data (Niu et al. 2022, arXiv 2206.13464)",
    "darc": "SAC on a simulator, rewards corrected by the dynamics gap (Eysenbach et al. 2021, arXiv 2006.13916)",
    "darcplus": "DARC whose critic learns from the real data too (as in Niu et al. 2022)",
    "moorl": "Reptile on SAC, offline and online data as its two tasks (Chaudhary et al. 2025, arXiv 2506.09574)",
    "mixedsac": "MOORL's control: as many SAC updates, each on half offline, half online rows",
    "lookaheadsac": "MOORL's control: its inner steps and meta rate (Lookahead), but mixed batches",
    "unio4": "clones improved offline by gated PPO, then PPO online (Lei et al. 2024, arXiv 2311.03351)",
    "bppo": "one clone improved offline by PPO, returns deciding on each step (Zhuang et al. 2023, arXiv 2302.11312)",
    "hnpg": "natural policy gradient, offline data in its critic and actor (Zhou et al. 2024, arXiv 2311.08384)",
    "trpo": "HNPG without offline data: trust-region policy gradient (Schulman et al. 2015, arXiv 1502.05477)",
    "hyq": "fitted Q-iteration on offline data and its own steps, one Q per step (Song et al. 2023, arXiv 2210.06718)",
    "hiql": "goals; one value, two levels of policy; offline (Park et al. 2023, arXiv 2307.11949, as in OGBench)",
    "ota": "goals; HIQL whose high level's value counts options, not steps (Ahn et al. 2025, arXiv 2505.12737)",
    "gcbc": "goals; behaviour cloning towards later states; offline (Ghosh et al. 2021, as in OGBench)",
    "gcivl": "goals; action-free implicit V-learning; offline (Park et al. 2024, arXiv 2410.20092)",
    "gciql": "goals; implicit Q-learning, DDPG+BC; offline (Kostrikov et al. 2021, as in OGBench)",
    "qrl": "goals; quasimetric distances, DDPG+BC; offline (Wang et al. 2023, arXiv 2304.01203, as in OGBench)",
    "crl": "goals; a contrastive critic, DDPG+BC; offline (Eysenbach et al. 2022, arXiv 2206.07568, as in OGBench)",
    "ppo": "PPO from scratch on fresh rollouts, no offline data (Schulman et al. 2017, arXiv 1707.06347)",
    "sac": "SAC from scratch with 10 critics and 4 updates a step, no offline data (Haarnoja et al. 2018, as in WSRL)",
}

# Those that need a task with goals, and data without rewards; all others need rewards.
GOAL_ALGORITHMS = ("hiql", "ota", "gcbc", "gcivl", "gciql", "qrl", "crl")


def spelled(name: str) -> str:
    """A name of an algorithm or claim as it is written here: `Uni-O4`, `uni_o4` and `unio4` are the same."""
    return name.lower().replace("-", "").replace("_", "")


@dataclasses.dataclass(frozen=True)
class ScheduleConfig:
    """What happens when: lengths of the phases, what their batches hold, when the policy is evaluated.

    Attributes:
        offline_updates: updates on the dataset before any environment step; 0 skips them.
        offline_batch_size: rows per offline update.
        warmup_steps: environment steps after the switch in which nothing is trained.
        online_steps: environment steps in all, warm-up included, as the papers count.
        updates_per_step: agent updates at a step that updates. The agents' own `critic_updates` multiplies their
            critics' steps within one update.
        update_every: environment steps from one step that updates to the next; 1, the usual, updates at each.
        online_batch_size: rows per online update, all of an update's critic steps together.
        retention: what becomes of the offline data: "none", "mixed" into every batch, or "append" to the replay buffer
            as a whole, before interaction begins.
        offline_ratio: share of offline rows in a "mixed" batch.
        mix_order: "interleave" or "concat", see `hybridrl.replay.offline_rows`.
        warmup_actions: "policy" or "uniform".
        min_buffer: rows the replay buffer must hold before online updates begin; None is the algorithm's own rule.
        insert: "step" or "episode", see `hybridrl.training.phases.Phase`.
        n_step: environment steps whose rewards one TD target sums before it bootstraps, offline and online.
        num_envs, rollout_steps: of on-policy algorithms: environments that act side by side, and steps of each between
            two updates; they have neither warm-up nor replay buffer.
        offline_every: updates between evaluations in the offline phase.
        dense_every, dense_until: evaluate so often for so many steps after the warm-up; dips are short.
        every: environment steps between evaluations after that.
    """

    offline_updates: int = 1_000_000
    offline_batch_size: int = 256
    warmup_steps: int = 5_000
    online_steps: int = 500_000
    updates_per_step: int = 1
    update_every: int = 1
    online_batch_size: int = 1_024
    retention: str = "none"
    offline_ratio: float = 0.5
    mix_order: str = "interleave"
    warmup_actions: str = "policy"
    min_buffer: int | None = None
    insert: str = "step"
    n_step: int = 1
    num_envs: int = 1
    rollout_steps: int = 2_048
    offline_every: int = 20_000
    dense_every: int = 1_000
    dense_until: int = 20_000
    every: int = 20_000

    def __post_init__(self) -> None:
        """Reject settings that cannot work."""
        for field, allowed in {
            "retention": ("none", "mixed", "append"),
            "mix_order": ("interleave", "concat"),
            "warmup_actions": ("policy", "uniform"),
            "insert": ("step", "episode"),
        }.items():
            if getattr(self, field) not in allowed:
                raise ConfigError(f"schedule.{field}={getattr(self, field)!r}; expected one of {', '.join(allowed)}")
        for field in ("offline_updates", "warmup_steps", "online_steps", "dense_until"):
            if getattr(self, field) < 0:
                raise ConfigError(f"schedule.{field}={getattr(self, field)}; expected 0 or more")
        positive = (
            "offline_batch_size",
            "updates_per_step",
            "update_every",
            "online_batch_size",
            "n_step",
            "num_envs",
            "rollout_steps",
            "offline_every",
            "dense_every",
            "every",
        )
        for field in positive:
            if getattr(self, field) < 1:
                raise ConfigError(f"schedule.{field}={getattr(self, field)}; expected 1 or more")
        if self.min_buffer is not None and self.min_buffer < 1:
            raise ConfigError(f"schedule.min_buffer={self.min_buffer}; expected 1 or more, or null for the usual rule")
        if not 0.0 <= self.offline_ratio <= 1.0:
            raise ConfigError(f"schedule.offline_ratio={self.offline_ratio}; expected a share in [0, 1]")
        if self.offline_updates == 0 and self.online_steps == 0:
            raise ConfigError("schedule.offline_updates=0 and schedule.online_steps=0; expected something to do")
        if self.online_steps and self.warmup_steps >= self.online_steps:
            raise ConfigError(
                f"schedule.warmup_steps={self.warmup_steps} leaves nothing of "
                f"schedule.online_steps={self.online_steps}, which includes it; lower the first or raise the second"
            )


@dataclasses.dataclass(frozen=True)
class LoopConfig:
    """How a run is carried out: see `hybridrl.training.loop.LoopSettings`, whose discount is the agent's."""

    replay_capacity: int = 2_000_000
    log_every: int = 1_000
    checkpoint_every: int = 10_000
    eval_episodes: int = 20
    eval_envs: int = 20
    probe_rows: int = 1_024
