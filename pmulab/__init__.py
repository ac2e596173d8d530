"""pmulab: a laboratory for virtualising the Arm PMU."""
