"""Other people's question and answer files; one file a form."""
