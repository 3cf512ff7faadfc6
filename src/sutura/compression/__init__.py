"""Smaller networks: layers split into thinner ones, by how much each may lose."""
