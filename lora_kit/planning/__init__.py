"""What a run will take, before it is begun: time, memory, disk, energy, and the change that helps most."""
