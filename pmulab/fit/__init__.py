"""The fit of three numbers to three published times: base speed, the factor on the software costs of perf, and the
share of the own time of the program in its kernel.

    python -m pmulab.fit [SCENARIO] [--grid]

A guest that works for U seconds in T seconds works for the share U / T of its time. The share is linear in the
factor f, because every interrupt, rotation and tick recurs at a rate and costs something plus f times something:
U / T = a + b f. Two runs per design give a and b; the published times of both designs then give f, and U, which is the
base speed. Throttling bends the line, so the fit is repeated around what it found. The share in the kernel follows from
the system time of the partitioned design, to which it is nearly proportional; that of the emulated one is a prediction.

No run is judged by the invariants: none is shown, and `pmulab run` judges the same.

What was fitted to one benchmark then predicts two others (`pmulab.fit.predictions`).
"""
