"""Stage I: from single-turn questions to the user's side of dialogues, by expansion or by the red team.

``expand`` and ``red_team`` are the two steps; ``perturb`` comes before them on a share of the seeds. Who does the work
is given as agents (steer_verl/data/agents.py): models at an endpoint (``endpoints``) or the laboratory's rules.
"""
