"""Who judges: a chat server, a model in process, a person, or a record of earlier judgments."""
