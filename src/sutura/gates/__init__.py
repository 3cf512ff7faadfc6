"""Make it true: gates where the network can go wrong, and the proof."""
