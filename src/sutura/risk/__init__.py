"""How far from harm: radii of norm balls in which a safety risk cannot occur."""
