"""Does it know when it is wrong? Probabilities that mean what they say, in domain and under shift."""
