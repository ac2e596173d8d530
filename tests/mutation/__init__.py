"""How much of what can be wrong with `partitioned` the search finds: mutants, generated, and what kills them.

python -m tests.mutation
"""
