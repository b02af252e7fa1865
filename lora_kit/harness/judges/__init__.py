"""The ways to ask a judge, one file each; none knows another."""
