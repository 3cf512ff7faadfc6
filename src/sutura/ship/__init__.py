"""The whole chain as one recipe: stages run one after the other, each kept by what went into it."""
