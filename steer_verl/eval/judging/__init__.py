"""Who rates every answer: a model with our rubric, a panel of them, or the laboratory's own judge."""
