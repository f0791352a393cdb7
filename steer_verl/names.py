"""The names by which verl's configuration calls this project. Light: the plugin reads them in every verl process."""

AGENT_LOOP = "steer_dialogue"
"""For ``actor_rollout_ref.rollout.agent.default_agent_loop``, or a row's ``agent_name``."""

REWARD_MANAGER = "steer_tutor"
"""For ``reward.reward_manager.name``."""

ADV_ESTIMATOR = "tcsr"
"""For ``algorithm.adv_estimator``."""

REWARD_MODEL_URL = "verl://reward_model"
"""A tutor endpoint's ``base_url`` that stands for the router of verl's own reward model (rollout/router.py)."""
