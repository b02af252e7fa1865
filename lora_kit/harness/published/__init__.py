"""Published judgments recomputed: each kind of case gives checks of expected against got."""
