"""What `make chaos` (tools/chaos.py) is made of: a small corpus, the places a store can be in, faults, and the rounds of the game."""
