"""The miniature laboratory: a small symbolic world in which the picture alone decides whether a request is restricted.

Every stage of the real pipeline runs on it in minutes: pictures (``world``), dialogues (``dialogues``), the student's
language (``answers``), a Qwen2.5-VL built offline (``model``), a tutor and a judge that know the truth (``tutor``,
``judge``). Its SFT and RL sets (``sets``) are made of its own single-turn seeds (``sources``) by the steps that make
anyone's, with rules in the place of models (``agents``, ``scripts``, ``bootstrap``). Nothing harmful is in it: the
"procedures" open toy devices.
"""
