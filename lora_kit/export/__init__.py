"""An adapter and its base become files for other tools."""
