"""Ranks: their world, rendezvous, and how work is split among them."""
