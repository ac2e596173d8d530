"""`python -m services.guest --name vm0`: a guest's kernel, attending every vCPU of its VM."""

import sys

from services.attend import Role
from services.guest import GuestKernel
from services.party import main

if __name__ == "__main__":
    sys.exit(main("guest", Role.GUEST, GuestKernel(), None))
