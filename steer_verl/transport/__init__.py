"""How a model at an OpenAI-compatible server is asked, and what is done when it fails.

A :class:`~steer_verl.transport.pool.Pool` of servers of one model, each with a breaker and an adaptive bound on what is
in flight; one deadline for a ruling; a ledger of every attempt. Nothing here knows what is asked, or why.
"""
