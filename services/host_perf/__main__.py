"""`python -m services.host_perf`: the host's perf, attending every pCPU of a kvm."""

import sys

from services.actor import main
from services.attend import Role
from services.host_perf import HostPerf

if __name__ == "__main__":
    sys.exit(main("host_perf", Role.HOST, HostPerf(), "host"))
