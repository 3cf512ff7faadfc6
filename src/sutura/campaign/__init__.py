"""Many jobs, many machines: pairs of network and property, each decided once by any number of workers."""
