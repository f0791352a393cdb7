"""How any model is asked: one request, one reply, one taxonomy of failures, one cache, one bound per server.

    endpoint = Endpoint(config, cache=cache)                    # one model; made once, shared by all dialogues
    context = endpoint.context(key=turn_key, purpose="score")   # one deadline, one account
    outcome = await endpoint.ask(Request(messages), context)    # Reply | Failure; never raises for what a server does

Rooms, from the bottom: ``request`` (the values), ``failure`` (what a server's error means), ``http`` (bounded bytes),
``limits`` (requests in flight, breaker), ``server`` (one address and model), ``hosts`` (what is shared), ``cache`` and
``log`` (what is kept), ``endpoint`` (choice, fail-over, deadline), ``reading`` (JSON in a reply).
"""
