"""Who is evaluated: a model at an endpoint, a folder served by vLLM, a verl checkpoint, the laboratory's student."""
