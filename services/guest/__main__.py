"""`python -m services.guest --name vm0`: a guest's kernel, attending every vCPU of its VM."""

import sys

from services.actor import main
from services.attend import Role
from services.guest import GuestKernel

if __name__ == "__main__":
    sys.exit(main("guest", Role.GUEST, GuestKernel(), None))
