"""The judge of every run: what it judges by, and what it has found, in words.

It watches the register traffic in the core (`rust/judge`), and is told nothing of what a design thinks. So this
imports no design, nothing of kvm and nothing of linux_perf.
"""
