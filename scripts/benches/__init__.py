"""The sub-commands of scripts/bench, a module each, and what they share."""
