"""The peak memory of this process, measured from a moment of our choosing."""

import resource
import sys


def reset_peak() -> None:
    """Forgets the peak so far where the system can (Linux); elsewhere the peak is that of the whole process."""
    try:
        with open("/proc/self/clear_refs", "w") as file:
            file.write("5")
    except OSError:
        pass


def peak_bytes() -> int:
    """The most memory that the process had resident since `reset_peak`, in bytes."""
    try:
        with open("/proc/self/status") as file:
            for line in file:
                if line.startswith("VmHWM:"):
                    return int(line.split()[1]) * 1024
    except OSError:
        pass
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
