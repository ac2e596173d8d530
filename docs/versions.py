"""x"""
import sys, time
from docs import posted
if __name__ == "__main__":
    v = sys.argv[1]
    t=time.perf_counter()
    of = posted.searched(v, lambda: time.perf_counter()-t > 120)
    if of is None: print("late"); sys.exit(9)
    kept = posted.read()
    kept[v] = of
    posted.write(kept)
    print(v, len(of.found), of.states, of.actions, of.refused[:3], time.perf_counter()-t)
