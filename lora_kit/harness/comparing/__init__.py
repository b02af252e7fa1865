"""Many systems, one journal, one ranking."""
