"""Neurons that point the same way: measured, predicted from the data, and merged with a bound.

After Zhou, Zhou, Luo, Zhang and Xu, "Towards Understanding the Condensation of Neural Networks at Initial
Training", NeurIPS 2022 (arXiv 2105.11686).
"""
